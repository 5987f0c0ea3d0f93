package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// Machines is how an [Engine] runs programs on the machines of members, which lets Seed and Backup copy files instead of rows.
type Machines struct {
	// Run runs a program on the member's machine, without a shell, and gives its exit status and what it wrote and stdout did
	// not take. It is provider.Commands' RunCommand, with Member.Machine as the instance: streams of any size, no faster than
	// either side takes them, and a stream that fails or a context that ends kills the program. The programs need to read
	// and write the server's data directory and what is beside it, so they run as root (by sudo, if need be) or as the server's
	// user. Nil: everything goes over SQL.
	Run func(ctx context.Context, m replication.Member, args []string, stdin io.Reader, stdout io.Writer) (exit int, output []byte, err error)
	// Stop and Start are the commands that stop the member's server and start it again, and return when that is done. Where
	// nobody has stopped it, the server starts by itself when its machine does. The defaults are "systemctl stop mariadb" and
	// "systemctl start mariadb".
	Stop, Start []string
}

func (c Machines) check(fault func(field, format string, args ...any)) {
	for field, args := range map[string][]string{"Stop": c.Stop, "Start": c.Start} {
		switch {
		case len(args) > 0 && c.Run == nil:
			fault("Machines."+field, "is set and Machines.Run is nil, want it to run that")
		case len(args) > 0 && args[0] == "":
			fault("Machines."+field, "has no program, want one first")
		}
	}
}

// The bounds of what is short on a machine, and of what replaces its data: both servers start within it, one after the other.
const (
	shortCommand = 30 * time.Second
	swapTime     = 5 * time.Minute
)

// on runs a program on a member's machine and gives what it wrote. It fails where the program does.
func (c Machines) on(ctx context.Context, m replication.Member, stdin io.Reader, stdout io.Writer, args ...string) (string, error) {
	exit, output, err := c.Run(ctx, m, args, stdin, stdout)
	if err != nil {
		if context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return "", err
	}
	if exit != 0 {
		return "", fmt.Errorf("status %d: %s", exit, lastWords(string(output)))
	}
	return string(output), nil
}

// script runs a script there, which is short. $1 and so on are its arguments.
func (c Machines) script(ctx context.Context, m replication.Member, script string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, shortCommand, errors.New("it takes too long"))
	defer cancel()
	return c.on(ctx, m, nil, nil, append([]string{"/bin/sh", "-c", script, "scalr"}, args...)...)
}

// lastWords is the last line of what a program wrote that says something.
func lastWords(output string) string {
	lines := strings.FieldsFunc(output, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(lines[i]); line != "" {
			return strings.ToValidUTF8(line[max(0, len(line)-300):], "")
		}
	}
	return "it says nothing"
}

// words makes a list of arguments one command of a POSIX shell.
func words(args []string) string {
	var list []string
	for _, a := range args {
		list = append(list, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(list, " ")
}

// swapScript gives the script that puts the directory $2 in the place of the data directory $1, which it keeps as $3. Whatever
// fails, and whoever started it dies: the server runs when it ends, on the copy or on what it had. The steps of another script
// come in between, when it has stopped.
func (c Machines) swapScript(between string) string {
	stop, start := c.Stop, c.Start
	if len(stop) == 0 {
		stop = []string{"systemctl", "stop", "mariadb"}
	}
	if len(start) == 0 {
		start = []string{"systemctl", "start", "mariadb"}
	}
	return `trap '' HUP INT PIPE TERM
stop() { ` + words(stop) + `; }
start() { ` + words(start) + `; }
between() { ` + cmp.Or(between, ":") + `; }
back() { [ ! -e "$1" ] && mv "$3" "$1"; start; }
stop || { start; echo "the server could not be stopped"; exit 1; }
between "$@" || { start; echo "the copy could not be made complete"; exit 1; }
mv "$1" "$3" && mv "$2" "$1" || { back "$@"; echo "the data directory could not be replaced"; exit 1; }
start && exit 0
stop; mv "$1" "$2"; back "$@"
echo "the server does not start on the copy; it has what it had"
exit 1`
}
