package openstack

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
)

func said(status int, body string) error {
	return gophercloud.ErrUnexpectedResponseCode{Actual: status, Body: []byte(body),
		ResponseHeader: http.Header{"X-Openstack-Request-Id": {"req-1"}, "Retry-After": {"7"}}}
}

func TestAnswersHaveTheirKind(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   error
		text   string
	}{
		{403, `{"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}`, provider.ErrQuota, "of 10 instances"},
		{403, `{"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create to be performed."}}`, provider.ErrAuth, "Policy"},
		{403, `{"forbidden": {"code": 403, "message": "Maximum number of metadata items exceeds 128"}}`, provider.ErrQuota, "metadata"},
		{403, `{"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": null}`, provider.ErrQuota, "Load Balancer"},
		{413, `{"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded", "retryAfter": "0"}}`, provider.ErrQuota, "(10)"},
		{409, `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['floatingip'].", "detail": ""}}`, provider.ErrQuota, "floatingip"},
		{409, `{"conflictingRequest": {"code": 409, "message": "Cannot 'reboot' while it is in vm_state building"}}`, nil, "building"},
		{429, `{"error": "slow"}`, provider.ErrThrottled, "7s"},
		{401, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`, provider.ErrAuth, "authentication"},
		{404, `{"itemNotFound": {"code": 404, "message": "Instance x could not be found."}}`, provider.ErrNotFound, "Instance x"},
		{400, `<html>bad</html>`, provider.ErrInvalid, "<html>"},
		{503, "", provider.ErrAmbiguous, "HTTP 503"},
		{500, `{"computeFault": {"message": "Unexpected API Error."}}`, provider.ErrAmbiguous, "Unexpected"},
	} {
		for _, err := range []error{said(c.status, c.body), &gophercloud.ErrErrorAfterReauthentication{ErrOriginal: said(c.status, c.body)}} {
			got := failed(t.Context(), "Launch", "t", err)
			e, ok := errors.AsType[*provider.Error](got)
			require.True(t, ok)
			require.Equal(t, c.kind, e.Kind, c.body)
			require.ErrorContains(t, got, c.text)
			require.True(t, is(got, c.status))
			require.Equal(t, c.kind == provider.ErrThrottled, e.RetryAfter == 7*time.Second)
			_, leaks := errors.AsType[gophercloud.ErrUnexpectedResponseCode](got)
			require.False(t, leaks, "the SDK's error has headers and bodies")
		}
		if c.status >= 500 {
			require.NotErrorIs(t, fail(t.Context(), "Instances", "", said(c.status, c.body)), provider.ErrAmbiguous)
		}
	}
}

func TestWhatWasNotHeardIsAmbiguousUnlessItWasNotSent(t *testing.T) {
	require.ErrorIs(t, failed(t.Context(), "Launch", "t", io.ErrUnexpectedEOF), provider.ErrAmbiguous)
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	require.NotErrorIs(t, failed(t.Context(), "Launch", "t", fmt.Errorf("post: %w", refused)), provider.ErrAmbiguous)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the lease is lost"))
	err := failed(ctx, "Launch", "t", ctx.Err())
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, provider.ErrAmbiguous)
	require.ErrorContains(t, err, "the lease is lost")
	require.NoError(t, failed(ctx, "Launch", "t", nil))
	bad := &gophercloud.ErrUnableToReauthenticate{ErrOriginal: said(401, ""), ErrReauth: said(401, "no such user")}
	require.ErrorIs(t, fail(t.Context(), "Instances", "", bad), provider.ErrAuth)
}

func TestUserDataThatTheCloudRepeatsIsHidden(t *testing.T) {
	secret := provider.Secret("hunter2 and more")
	body := `{"badRequest": {"message": "Invalid input for field/attribute user_data. Value: ` + base64.StdEncoding.EncodeToString(secret) + `, or hunter2 and more"}}`
	err := hide(failed(t.Context(), "Launch", "t", said(400, body)), secret)
	require.ErrorIs(t, err, provider.ErrInvalid)
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, errors.Unwrap(err)) + fmt.Sprintf(verb, err)
		require.NotContains(t, text, "hunter2")
		require.NotContains(t, text, base64.StdEncoding.EncodeToString(secret))
	}
	require.ErrorContains(t, err, "[16 bytes]")
}

func TestNovaNamesNoFieldButTheErrorDoes(t *testing.T) {
	l := provider.Launch{Token: "t", Placement: "gamma", KeyPair: "mine", SecurityGroups: []string{"web"}, Network: "n"}
	for text, want := range map[string]string{
		"The requested availability zone is not available": `Placement is "gamma"`,
		"Invalid key_name provided.":                       `KeyPair is "mine"`,
		"Security group web not found.":                    `SecurityGroups is ["web"]`,
	} {
		err := explain(failed(t.Context(), "Launch", "t", said(400, `{"badRequest": {"message": "`+text+`"}}`)), l)
		require.ErrorIs(t, err, provider.ErrInvalid)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, text)
	}
	several := explain(failed(t.Context(), "Launch", "t", said(409, `{"conflictingRequest": {"message": "Multiple possible networks found, use a Network ID to be more specific."}}`)), l)
	require.ErrorIs(t, several, provider.ErrInvalid)
	busy := explain(failed(t.Context(), "Launch", "t", said(409, `{"conflictingRequest": {"message": "busy"}}`)), l)
	require.NotErrorIs(t, busy, provider.ErrInvalid)
}
