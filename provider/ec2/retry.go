package ec2

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
)

// newRetryer is what one service's calls share: the bucket that bounds retries, and the rate that falls when calls are
// throttled.
func newRetryer() aws.RetryerV2 {
	return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
		o.StandardOptions = append(o.StandardOptions, func(o *retry.StandardOptions) {
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeless)}, o.Retryables...)
		})
	})
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
