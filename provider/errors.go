package provider

import (
	"errors"
	"fmt"
	"time"
)

// The kinds of error. A driver wraps its cloud's own error and one kind into an [Error]; callers branch with errors.Is.
// An error of no kind is one that may pass by itself: the caller tries again at its next pass.
var (
	// ErrCapacity: the placement has none of this size now. Try another placement, size or pool; do not retry in place.
	ErrCapacity = errors.New("no capacity")
	// ErrQuota: the account may not have more. Another placement of the same account may not help.
	ErrQuota = errors.New("quota exceeded")
	// ErrThrottled: too many calls. Try again after Error.RetryAfter.
	ErrThrottled = errors.New("throttled")
	// ErrAuth: the credentials are wrong or lack a permission. Retrying does not help.
	ErrAuth = errors.New("not authorised")
	// ErrInvalid: the request can never succeed as it is. The message names the field, the value and the rule.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: what the call names does not exist, or does not exist yet.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: the call may or may not have taken effect. Only the same call with the same token is safe.
	ErrAmbiguous = errors.New("outcome unknown")
)

// Error is what a driver returns.
type Error struct {
	Op         string        // the method: "Launch"
	ID         string        // what it was about: an instance, a token; may be empty
	Kind       error         // one of the kinds, or nil
	Err        error         // the cause
	RetryAfter time.Duration // with ErrThrottled: how long the cloud asks to wait; 0 if it does not say
}

// Error gives "Op ID: kind: cause", and how long to wait.
func (e *Error) Error() string {
	s := e.Op
	if e.ID != "" {
		s += " " + e.ID
	}
	if e.Kind != nil {
		s += ": " + e.Kind.Error()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %s)", e.RetryAfter)
	}
	return s
}

// Unwrap lets errors.Is and errors.As find the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// Errorf makes an *Error whose cause is formatted as by fmt.Errorf.
func Errorf(op, id string, kind error, format string, args ...any) error {
	return &Error{Op: op, ID: id, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// Wrapper is a Provider around another one.
type Wrapper interface {
	Provider
	Unwrap() Provider
}

// As finds the capability T in p or, if p is a [Wrapper], in what it wraps. The outermost wins: a wrapper that means to see
// the calls of a capability as well implements that capability itself.
func As[T any](p Provider) (T, bool) {
	for p != nil {
		if t, ok := p.(T); ok {
			return t, true
		}
		w, ok := p.(Wrapper)
		if !ok {
			break
		}
		p = w.Unwrap()
	}
	var zero T
	return zero, false
}
