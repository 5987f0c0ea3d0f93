package openstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/scalr-go/scalr/provider"
)

// fail is the error of a call that reads, or that changes what can be changed again without harm.
func fail(ctx context.Context, op, id string, err error) error { return kinds(ctx, op, id, err, nil) }

// failed is the error of a call that may have taken effect if nothing was heard of it.
func failed(ctx context.Context, op, id string, err error) error {
	return kinds(ctx, op, id, err, provider.ErrAmbiguous)
}

// kinds gives an error its kind. The SDK's own errors stay out of the chain: they carry the bodies and headers of answers,
// which may show what was sent.
func kinds(ctx context.Context, op, id string, err, unheard error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*provider.Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		cause := ctx.Err()
		if c := context.Cause(ctx); !errors.Is(cause, c) {
			cause = fmt.Errorf("%w: %w", cause, c)
		}
		return &provider.Error{Op: op, ID: id, Kind: unheard, Err: cause}
	}
	if e, ok := errors.AsType[*gophercloud.ErrUnableToReauthenticate](err); ok {
		err = e.ErrReauth
	}
	resp, ok := response(err)
	if !ok {
		if unsent(err) {
			unheard = nil
		}
		if text := err.Error(); len(text) > 1000 {
			err = errors.New(text[:1000] + "…") // the SDK quotes whole answers
		}
		return &provider.Error{Op: op, ID: id, Kind: unheard, Err: err}
	}
	text := message(resp.Body)
	e := &provider.Error{Op: op, ID: id, Kind: kindOf(resp.Actual, text), Err: &answer{resp.Actual, text, resp.ResponseHeader.Get("X-Openstack-Request-Id")}}
	switch {
	case e.Kind == provider.ErrThrottled:
		e.RetryAfter = retryAfter(resp.ResponseHeader, 0)
	case resp.Actual >= 500:
		e.Kind = unheard
	}
	return e
}

// answer is what a service said that did not do what it was asked.
type answer struct {
	status  int
	text    string
	request string // the service's own number of the request, for its logs
}

func (a *answer) Error() string {
	s := fmt.Sprintf("HTTP %d", a.status)
	if a.text != "" {
		s += ": " + a.text
	}
	if a.request != "" {
		s += " (" + a.request + ")"
	}
	return s
}

// response finds the answer in an error.
func response(err error) (gophercloud.ErrUnexpectedResponseCode, bool) {
	if e, ok := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err); ok {
		return e, true
	}
	if e, ok := errors.AsType[*gophercloud.ErrUnexpectedResponseCode](err); ok {
		return *e, true
	}
	if e, ok := errors.AsType[*gophercloud.ErrErrorAfterReauthentication](err); ok {
		return response(e.ErrOriginal)
	}
	return gophercloud.ErrUnexpectedResponseCode{}, false
}

// statusOf gives the status of the answer, here or in a *provider.Error.
func statusOf(err error) (status int, answered bool) {
	if a, ok := errors.AsType[*answer](err); ok {
		return a.status, true
	}
	r, ok := response(err)
	return r.Actual, ok
}

func is(err error, status int) bool {
	got, ok := statusOf(err)
	return ok && got == status
}

// unsent reports whether the request cannot have reached the service.
func unsent(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// kindOf tells what an answer means. A 403 is a quota or a missing right, which only its text tells; a 413 is a quota; a
// quota of Neutron is a 409, which is otherwise a state that passes.
func kindOf(status int, text string) error {
	low := strings.ToLower(text)
	quota := strings.Contains(low, "quota") || strings.Contains(low, "limitexceeded") || strings.Contains(low, "limit exceeded") ||
		strings.Contains(low, "exceeds allowed") || strings.Contains(low, "maximum number of")
	switch status {
	case http.StatusTooManyRequests, 498:
		return provider.ErrThrottled
	case http.StatusRequestEntityTooLarge:
		return provider.ErrQuota
	case http.StatusForbidden:
		if quota {
			return provider.ErrQuota
		}
		return provider.ErrAuth
	case http.StatusUnauthorized:
		return provider.ErrAuth
	case http.StatusConflict:
		if quota {
			return provider.ErrQuota
		}
		return nil
	case http.StatusNotFound, http.StatusGone:
		return provider.ErrNotFound
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusNotImplemented:
		return provider.ErrInvalid
	}
	return nil
}

// message finds the text in the body of an answer: each service has a form of its own.
func message(body []byte) string {
	var v any
	text := string(body)
	if json.Unmarshal(body, &v) == nil {
		text = find(v)
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	return text
}

func find(v any) string {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range []string{"message", "faultstring", "title"} {
			if s, ok := v[key].(string); ok && s != "" {
				return s
			}
		}
		for _, inner := range v {
			if s := find(inner); s != "" {
				return s
			}
		}
	case []any:
		for _, inner := range v {
			if s := find(inner); s != "" {
				return s
			}
		}
	}
	return ""
}
