package ec2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/scalr-go/scalr/provider"
)

// The error codes of EC2 and ELBv2 whose kind does not show in their names: "Error codes for the Amazon EC2 API", and the
// list of capacity errors that Karpenter keeps.
var (
	noCapacity = set("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity",
		"InsufficientCapacity", "InsufficientCapacityOnHost", "InsufficientAddressCapacity", "InsufficientVolumeCapacity",
		"InsufficientFreeAddressesInSubnet", "UnfulfillableCapacity", "SpotMaxPriceTooLow",
		"Unsupported") // the zone has no machines of the type at all
	noPermission = set("AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied",
		"AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "RequestExpired", "OptInRequired", "Blocked",
		"PendingVerification", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "UnrecognizedClientException",
		"IncompleteSignature", "InvalidSignatureException")
	mayPass = set("IncorrectState", "IncorrectInstanceState", "InvalidVolume.ZoneNotReady", "InternalError",
		"InternalFailure", "Unavailable", "ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "ResourceInUse",
		"PriorRequestNotComplete", "ConcurrentModification", "DependencyViolation")
	isInvalid = set("IdempotentParameterMismatch", "IdempotentInstanceTerminated", "ValidationError", "VolumeInUse", "UnsupportedOperation",
		"OperationNotPermitted", "UnknownParameter", "VolumeTypeNotAvailableInZone", "UnknownVolumeType", "NonEBSInstance")
)

func set(codes ...string) map[string]bool {
	m := map[string]bool{}
	for _, c := range codes {
		m[c] = true
	}
	return m
}

func throttled(code string) bool {
	_, is := retry.DefaultThrottleErrorCodes[code]
	return is
}

// kindOf tells the kind of an error from its code; nil is one that may pass.
func kindOf(code string) error {
	switch {
	case throttled(code):
		return provider.ErrThrottled
	case noCapacity[code]:
		return provider.ErrCapacity
	case noPermission[code]:
		return provider.ErrAuth
	case mayPass[code]:
		return nil
	case strings.HasSuffix(code, "LimitExceeded"), strings.HasSuffix(code, "QuotaExceeded"), strings.HasPrefix(code, "TooMany"),
		code == "MaxSpotInstanceCountExceeded":
		return provider.ErrQuota
	case strings.HasSuffix(code, "NotFound"):
		return provider.ErrNotFound
	case isInvalid[code], strings.HasPrefix(code, "Invalid"), strings.HasPrefix(code, "Malformed"), strings.HasPrefix(code, "Missing"),
		strings.HasPrefix(code, "Duplicate"), strings.HasPrefix(code, "Incompatible"):
		return provider.ErrInvalid
	}
	return nil
}

// codeOf is the code of an error of the API, or empty.
func codeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// cause is the SDK's error in fewer words.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// Whether a call changes anything.
const (
	reads   = false
	changes = true
)

// fail makes a call's error into a *provider.Error. An error that is one already stays as it is.
func (c *Cloud) fail(ctx context.Context, op, id string, does bool, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*provider.Error](err); ok {
		return err
	}
	e := &provider.Error{Op: op, ID: id, Err: err}
	api, refused := errors.AsType[smithy.APIError](err)
	_, noCredentials := errors.AsType[*credentialsError](err)
	dns, _ := errors.AsType[*net.DNSError](err)
	switch {
	case ctx.Err() != nil:
		if !errors.Is(err, ctx.Err()) {
			e.Err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if does && !unsent(err) {
			e.Kind = provider.ErrAmbiguous
		}
	case noCredentials:
		e.Kind = provider.ErrAuth
	case dns != nil && dns.IsNotFound:
		e.Kind = provider.ErrInvalid
		e.Err = &cause{fmt.Sprintf("Region is %q: there is no host %s", c.opts.Region, dns.Name), err}
	case refused:
		e.Kind = kindOf(api.ErrorCode())
		e.Err = &cause{cut(api.ErrorCode() + ": " + api.ErrorMessage()), err}
		e.RetryAfter = retryAfter(err, e.Kind)
		if code := status(err); e.Kind == nil && (code == 401 || code == 403) {
			e.Kind = provider.ErrAuth // a gateway in between has an error of its own
		}
		// The server's own fault may strike after it has done what was asked.
		if e.Kind == nil && does && status(err) >= 500 {
			e.Kind = provider.ErrAmbiguous
		}
	case does && !unsent(err):
		e.Kind = provider.ErrAmbiguous
	}
	return e
}

// cut shortens messages; a denied request comes with kilobytes of an encoded explanation.
func cut(s string) string {
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}

func status(err error) int {
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// retryAfter is how long a server asks to wait.
func retryAfter(err error, kind error) time.Duration {
	e, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || e.Response == nil || kind != provider.ErrThrottled {
		return 0
	}
	h := e.Response.Header.Get("Retry-After")
	if n, err := strconv.Atoi(h); err == nil && n > 0 && n < 3600 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return min(max(time.Until(at), 0), time.Hour)
	}
	return 0
}

// unsent reports whether a request has not reached the server for sure.
func unsent(err error) bool {
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// invalid is an ErrInvalid of the driver's own.
func invalid(op, id, format string, args ...any) error {
	return provider.Errorf(op, id, provider.ErrInvalid, format, args...)
}

// missing is the error of a thing that EC2 does not show. What this Cloud has just made may yet come to be shown.
func (c *Cloud) missing(op, id, thing string) error {
	if since, young := c.memory.young(thing); young {
		return provider.Errorf(op, id, nil, "%s was made %s ago, and EC2 does not show it yet", thing, since.Round(time.Millisecond))
	}
	return provider.Errorf(op, id, provider.ErrNotFound, "%s does not exist", thing)
}

// isGone reports whether EC2 says that a thing does not exist, or no more.
func isGone(err error) bool {
	code := codeOf(err)
	return kindOf(code) == provider.ErrNotFound || code == "InvalidAMIID.Unavailable"
}

// ended is the error of a call whose context has ended before it.
func ended(ctx context.Context, op, id string) error {
	if err := ctx.Err(); err != nil {
		return &provider.Error{Op: op, ID: id, Err: err}
	}
	return nil
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }
