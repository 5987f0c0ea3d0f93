package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/provider"
)

func commandCases() []testCase {
	on := func(f func(*suite, provider.Commands)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Commands](s)) }
	}
	return []testCase{
		{"Commands/Run", on(runCommand)},
		{"Commands/Streams", on(commandStreams)},
		{"Commands/Killed", on(commandKilled)},
		{"Commands/Refused", on(commandRefused)},
	}
}

func runCommand(s *suite, p provider.Commands) {
	i := s.running()
	run := func(c provider.Command, in string) provider.CommandResult {
		s.Helper()
		var result provider.CommandResult
		s.eventually("a command runs on a running instance", func() (ok bool, saw string) {
			if in != "" {
				c.Stdin = strings.NewReader(in)
			}
			r, err := p.RunCommand(s.ctx, i.ID, c)
			result = r
			return err == nil, fmt.Sprint(err)
		})
		return result
	}
	for _, c := range []struct {
		rule   string
		cmd    provider.Command
		in     string
		exit   int
		output string
	}{
		{"a command runs without a shell", provider.Command{Args: []string{"echo", "$HOME", "a  b"}}, "", 0, "$HOME a  b\n"},
		{"a command reads its standard input", provider.Command{Args: []string{"cat"}}, "in\nput", 0, "in\nput"},
		{"a command without standard input reads its end", provider.Command{Args: []string{"cat"}}, "", 0, ""},
		{"a command has the environment that was given",
			provider.Command{Args: []string{"sh", "-c", `echo "$SCALR_TEST"`}, Env: []string{"SCALR_TEST=a b=c"}}, "", 0, "a b=c\n"},
		{"a command that fails is no error", provider.Command{Args: []string{"sh", "-c", "exit 3"}}, "", 3, ""},
		{"the exit status of a command that a signal ended is -1", provider.Command{Args: []string{"sh", "-c", "kill -9 $$"}}, "", -1, ""},
		{"standard error comes after standard output",
			provider.Command{Args: []string{"sh", "-c", "echo err >&2; echo out"}}, "", 0, "out\nerr\n"},
	} {
		got := run(c.cmd, c.in)
		s.rule(got.Exit == c.exit && string(got.Output) == c.output, c.rule, "got exit %d and %q, want %d and %q", got.Exit, got.Output, c.exit, c.output)
	}
	long := run(provider.Command{Args: []string{"sh", "-c", "dd if=/dev/zero bs=1048576 count=2 2>/dev/null; echo err >&2"}}, "")
	want := append(make([]byte, 1<<20), "err\n"...)
	s.rule(bytes.Equal(long.Output, want), "standard output and error are cut after 1 MiB each", "got %d bytes, want %d", len(long.Output), len(want))
}

// streamed is the size of a stream that no driver should keep, and ahead how much of it may be on the way.
const streamed, ahead = 24 << 20, 12 << 20

// counter gives bytes that depend on their place, and then the error.
type counter struct {
	size  int64
	given atomic.Int64
	err   error
}

func (r *counter) Read(p []byte) (int, error) {
	at := r.given.Load()
	p = p[:min(int64(len(p)), r.size-at)]
	if len(p) == 0 {
		return 0, r.err
	}
	n := copy(p, pattern[at%int64(len(pattern)):])
	r.given.Add(int64(n))
	return n, nil
}

// pattern is repeated in a stream. No buffer has its length.
var pattern = func() []byte {
	p := make([]byte, 65521)
	for i := range p {
		p[i] = byte(i ^ i>>8)
	}
	return p
}()

// checker compares what is written with what the counter gave, and takes its time.
type checker struct {
	from       *counter
	got, early int64
	wrong      int // pieces
}

func (w *checker) Write(p []byte) (int, error) {
	if w.got == 0 {
		time.Sleep(200 * time.Millisecond) // a driver that reads ahead does it now
	}
	w.early = max(w.early, w.from.given.Load()-w.got)
	for left := p; len(left) > 0; {
		want := pattern[w.got%int64(len(pattern)):]
		n := min(len(want), len(left))
		if !bytes.Equal(left[:n], want[:n]) {
			w.wrong++
		}
		left = left[n:]
		w.got += int64(n)
	}
	return len(p), nil
}

type failing struct{ err error }

func (w failing) Write([]byte) (int, error) { return 0, w.err }

func commandStreams(s *suite, p provider.Commands) {
	i := s.running()
	file := "/tmp/scalr-" + s.mark
	defer p.RunCommand(context.WithoutCancel(s.ctx), i.ID, provider.Command{Args: []string{"rm", "-f", file}})
	var in *counter
	run := func(size int64, end error, out io.Writer, args ...string) (provider.CommandResult, error) {
		in = &counter{size: size, err: end}
		if c, ok := out.(*checker); ok {
			c.from = in
		}
		return p.RunCommand(s.ctx, i.ID, provider.Command{Args: args, Stdin: in, Stdout: out})
	}
	var out *checker
	var r provider.CommandResult
	const exact = "what a command reads and writes as streams is exact"
	s.eventually(exact, func() (bool, string) {
		var err error
		out = &checker{}
		r, err = run(streamed, io.EOF, out, "sh", "-c", "cat; echo done >&2")
		s.rule(err != nil || r.Exit == 0 && out.got == streamed && out.wrong == 0, exact,
			"exit %d, %d of %d bytes, %d pieces wrong", r.Exit, out.got, int64(streamed), out.wrong)
		return err == nil, fmt.Sprint(err)
	})
	s.rule(string(r.Output) == "done\n", "what Stdout has taken is not in the output", "got %.50q", r.Output)
	s.rule(out.early <= ahead, "a stream is read no faster than it is written", "%d bytes were read ahead", out.early)

	broken := errors.New("the stream is broken")
	const told = "the error of a Stdin that fails is returned"
	s.eventually(told, func() (bool, string) {
		_, err := run(1<<20, broken, nil, "sh", "-c", `cat >/dev/null; touch "$0"`, file)
		s.rule(err != nil, told, "got none")
		return errors.Is(err, broken), fmt.Sprint(err)
	})
	s.eventually("a command does not take a part of its input for all of it", func() (bool, string) {
		r, err := p.RunCommand(s.ctx, i.ID, provider.Command{Args: []string{"sh", "-c", `! test -e "$0"`, file}})
		return err == nil && r.Exit == 0, fmt.Sprintf("exit %d, %v", r.Exit, err)
	})
	s.eventually("the error of a Stdout that fails is returned", func() (bool, string) {
		_, err := run(streamed, io.EOF, failing{broken}, "cat")
		return errors.Is(err, broken), fmt.Sprint(err)
	})

	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	blocked, end := io.Pipe()
	defer end.Close()
	const idle = "a command that ends does not wait for its input"
	s.eventually(idle, func() (bool, string) {
		ended := make(chan error, 1)
		go func() {
			_, err := p.RunCommand(ctx, i.ID, provider.Command{Args: []string{"true"}, Stdin: blocked})
			ended <- err
		}()
		err := s.await(ended, idle)
		return err == nil, fmt.Sprint(err)
	})
	ended := make(chan error, 1)
	go func() {
		_, err := p.RunCommand(ctx, i.ID, provider.Command{Args: []string{"cat"}, Stdin: blocked})
		ended <- err
	}()
	cancel()
	s.rule(s.await(ended, "a command whose context ends does not wait for its input") != nil,
		"a command whose context ends is an error", "got none")
}

// await gives what comes, or fails.
func (s *suite) await(c <-chan error, rule string) error {
	s.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(s.Wait):
		s.rule(false, rule, "it did not return within %s", s.Wait)
		return nil
	}
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
	err := s.await(ended, bounded)
	s.rule(errors.Is(err, context.Canceled), bounded, "got %v", err)
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
