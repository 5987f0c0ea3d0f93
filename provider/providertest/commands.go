package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

func commandCases() []testCase {
	on := func(f func(*suite, provider.Commands)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Commands](s)) }
	}
	return []testCase{
		{"Commands/Run", on(runCommand)},
		{"Commands/Killed", on(commandKilled)},
		{"Commands/Refused", on(commandRefused)},
	}
}

func runCommand(s *suite, p provider.Commands) {
	i := s.running()
	run := func(c provider.Command) provider.CommandResult {
		s.Helper()
		var result provider.CommandResult
		s.eventually("a command runs on a running instance", func() (ok bool, saw string) {
			r, err := p.RunCommand(s.ctx, i.ID, c)
			result = r
			return err == nil, fmt.Sprint(err)
		})
		return result
	}
	for _, c := range []struct {
		rule   string
		cmd    provider.Command
		exit   int
		output string
	}{
		{"a command runs without a shell", provider.Command{Args: []string{"echo", "$HOME", "a  b"}}, 0, "$HOME a  b\n"},
		{"a command reads its standard input", provider.Command{Args: []string{"cat"}, Stdin: []byte("in\nput")}, 0, "in\nput"},
		{"a command without standard input reads its end", provider.Command{Args: []string{"cat"}}, 0, ""},
		{"a command has the environment that was given",
			provider.Command{Args: []string{"sh", "-c", `echo "$SCALR_TEST"`}, Env: []string{"SCALR_TEST=a b=c"}}, 0, "a b=c\n"},
		{"a command that fails is no error", provider.Command{Args: []string{"sh", "-c", "exit 3"}}, 3, ""},
		{"the exit status of a command that a signal ended is -1", provider.Command{Args: []string{"sh", "-c", "kill -9 $$"}}, -1, ""},
		{"standard error comes after standard output",
			provider.Command{Args: []string{"sh", "-c", "echo err >&2; echo out"}}, 0, "out\nerr\n"},
	} {
		got := run(c.cmd)
		s.rule(got.Exit == c.exit && string(got.Output) == c.output, c.rule, "got exit %d and %q, want %d and %q", got.Exit, got.Output, c.exit, c.output)
	}
	long := run(provider.Command{Args: []string{"sh", "-c", "dd if=/dev/zero bs=1048576 count=2 2>/dev/null; echo err >&2"}})
	want := append(make([]byte, 1<<20), "err\n"...)
	s.rule(bytes.Equal(long.Output, want), "standard output and error are cut after 1 MiB each", "got %d bytes, want %d", len(long.Output), len(want))
}

func commandKilled(s *suite, p provider.Commands) {
	i := s.running()
	file := "/tmp/scalr-" + s.mark
	defer p.RunCommand(context.WithoutCancel(s.ctx), i.ID, provider.Command{Args: []string{"rm", "-f", file}})
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := p.RunCommand(ctx, i.ID, provider.Command{Args: []string{"sh", "-c", `sleep 3600 & echo $! >"$0"; wait`, file}})
		ended <- err
	}()
	check := func(script string) func() (bool, string) {
		return func() (bool, string) {
			r, err := p.RunCommand(s.ctx, i.ID, provider.Command{Args: []string{"sh", "-c", script, file}})
			return err == nil && r.Exit == 0, fmt.Sprintf("exit %d, %q, %v", r.Exit, r.Output, err)
		}
	}
	s.eventually("a command runs on a running instance, beside another one", check(`test -s "$0"`))
	cancel()
	const bounded = "a command whose context ends returns with the context's error"
	select {
	case err := <-ended:
		s.rule(errors.Is(err, context.Canceled), bounded, "got %v", err)
	case <-time.After(s.Wait):
		s.rule(false, bounded, "it did not return within %s", s.Wait)
	}
	s.eventually("a command whose context ends is killed with its children", check(`! kill -0 "$(cat "$0")" 2>/dev/null`))
}

func commandRefused(s *suite, p provider.Commands) {
	i := s.running()
	_, err := p.RunCommand(s.ctx, i.ID, provider.Command{})
	s.refused(err, "a command without a program is ErrInvalid", provider.ErrInvalid)
	const secret = "correct-horse-battery-staple"
	_, err = p.RunCommand(s.ctx, i.ID, provider.Command{Args: []string{"scalr-no-such-program"}, Env: []string{"PASSWORD=" + secret}})
	s.rule(!strings.Contains(fmt.Sprintf("%v %+v", err, err), secret), "no error shows the environment of a command", "got %v", err)
	s.terminate(i.ID)
	_, err = p.RunCommand(s.ctx, i.ID, provider.Command{Args: []string{"true"}})
	s.refused(err, "a command on what is gone is ErrNotFound", provider.ErrNotFound)
}
