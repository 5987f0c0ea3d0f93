package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// Program lets a program run the servers of this package as a test does: f gets what stands in for a test, and its
// clean-ups run when f returns. What would fail or skip a test is the error; logs go to standard error.
func Program(ctx context.Context, f func(t testing.TB) error) (err error) {
	p := &program{ctx: ctx}
	defer func() {
		if v := recover(); v != nil && v != errStopped {
			panic(v)
		}
		for _, f := range slices.Backward(p.cleanups) {
			f()
		}
		err = errors.Join(err, p.err)
	}()
	return f(p)
}

// program stands in for a test.
type program struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	err      error
}

var errStopped = errors.New("stopped")

func (p *program) Helper()                           {}
func (p *program) Name() string                      { return os.Args[0] }
func (p *program) Context() context.Context          { return p.ctx }
func (p *program) Cleanup(f func())                  { p.cleanups = append(p.cleanups, f) }
func (p *program) Failed() bool                      { return p.err != nil }
func (p *program) Log(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (p *program) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (p *program) Error(args ...any)                 { p.err = errors.Join(p.err, errors.New(fmt.Sprint(args...))) }
func (p *program) Errorf(format string, args ...any) { p.Error(fmt.Sprintf(format, args...)) }
func (p *program) FailNow()                          { panic(errStopped) }
func (p *program) Fatal(args ...any)                 { p.Error(args...); p.FailNow() }
func (p *program) Fatalf(format string, args ...any) { p.Errorf(format, args...); p.FailNow() }
func (p *program) Skip(args ...any)                  { p.Fatal(args...) }
