package cronlock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// commandGrace is how long a program may take to end after it was told to.
const commandGrace = 5 * time.Second

// Command gives a Job.Run that runs a program. It fails if the program's exit status is not 0. The program's output goes
// to Run.Output. Beside the environment of this process, it has SCALR_JOB, SCALR_AT (RFC 3339), SCALR_ATTEMPT and
// SCALR_TOKEN.
//
// On Unix it runs in a process group of its own. If the run's context ends, the group gets a SIGTERM and five seconds later a SIGKILL;
// after a lost lease it gets the SIGKILL at once. Nothing of the group is left when the run returns. On Linux the program is also killed
// when this process dies, though not what it has started itself.
func Command(name string, args ...string) func(context.Context, Run) error {
	return func(ctx context.Context, run Run) error {
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = run.Output, run.Output
		cmd.WaitDelay = time.Second // for output that a program of another group holds open
		cmd.Env = append(os.Environ(), "SCALR_JOB="+run.Job, "SCALR_AT="+run.At.Format(time.RFC3339Nano),
			fmt.Sprintf("SCALR_ATTEMPT=%d", run.Attempt), fmt.Sprintf("SCALR_TOKEN=%d", run.Token))
		isolate(cmd)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		started, ended := make(chan error, 1), make(chan error, 1)
		go func() { ended <- runHere(cmd, started) }()
		if err := <-started; err != nil {
			return err
		}
		defer signal(cmd, true)
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		cause := context.Cause(ctx)
		if !errors.Is(cause, ErrLost) {
			signal(cmd, false)
			select {
			case err := <-ended:
				return errors.Join(cause, err)
			case <-time.After(commandGrace):
			}
		}
		signal(cmd, true)
		return errors.Join(cause, <-ended)
	}
}
