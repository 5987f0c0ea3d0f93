package ec2

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
)

// newRetryer is what one service's calls share: the SDK's own bucket that bounds retries, and the pause that all take when one
// is throttled. (The SDK's adaptive mode has such a thing, too. It measures the rate of calls and takes a part of it; a farm
// makes few, and one throttled call would leave it one call in two seconds.)
func newRetryer() *retryer {
	return &retryer{shortest: 250 * time.Millisecond, longest: 10 * time.Second, RetryerV2: retry.NewStandard(func(o *retry.StandardOptions) {
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless)}, o.Retryables...)
	})}
}

type retryer struct {
	aws.RetryerV2
	// The pause after the first throttled call; it doubles with each further one to the longest, and halves with each
	// success. The longest also bounds the delay of a retry.
	shortest, longest time.Duration

	mu    sync.Mutex
	pause time.Duration
	until time.Time
}

// RetryDelay is the SDK's, within bounds.
func (r *retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	d, err := r.RetryerV2.RetryDelay(attempt, err)
	return min(d, r.longest), err
}

// GetAttemptToken waits for the end of the pause before each attempt of any call.
func (r *retryer) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	for {
		r.mu.Lock()
		left, length := time.Until(r.until), r.pause
		r.mu.Unlock()
		if left <= 0 {
			break
		}
		// Not all at once when it ends.
		if err := pause(ctx, left+rand.N(length/2+1)); err != nil {
			return nil, err
		}
	}
	release, err := r.RetryerV2.GetAttemptToken(ctx)
	began := time.Now()
	return func(attempt error) error {
		r.learn(began, attempt)
		return release(attempt)
	}, err
}

// learn takes note of how an attempt ended. Those that were under way when a pause began tell nothing new.
func (r *retryer) learn(began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if began.Before(r.until) {
		return
	}
	switch {
	case throttled(codeOf(err)):
		r.pause = min(max(2*r.pause, r.shortest), r.longest)
		r.until = time.Now().Add(r.pause)
	case err == nil:
		if r.pause /= 2; r.pause < r.shortest/2 {
			r.pause = 0
		}
	}
}

// hopeless keeps the SDK from trying again what another placement would answer better: EC2 reports a lack of capacity
// with a status of 500, which the SDK would retry.
func hopeless(err error) aws.Ternary {
	if e, ok := errors.AsType[smithy.APIError](err); ok && noCapacity[e.ErrorCode()] {
		return aws.FalseTernary
	}
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// once is for operations that would make a second thing: they are tried again only if they have had no effect for sure.
func once(o *ec2.Options) {
	if r, ok := o.Retryer.(aws.RetryerV2); ok {
		o.Retryer = careful{r}
	}
}

type careful struct{ aws.RetryerV2 }

func (r careful) IsErrorRetryable(err error) bool {
	e, refused := errors.AsType[smithy.APIError](err)
	return r.RetryerV2.IsErrorRetryable(err) && (refused && throttled(e.ErrorCode()) || unsent(err))
}

// credentials marks the errors of whoever gives the credentials.
type credentials struct{ aws.CredentialsProvider }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	got, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		err = &credentialsError{err}
	}
	return got, err
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "no credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
