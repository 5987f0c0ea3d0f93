//go:build !unix

package cronlock

import "os/exec"

func isolate(*exec.Cmd) {}

func runHere(cmd *exec.Cmd, started chan<- error) error {
	err := cmd.Start()
	started <- err
	if err != nil {
		return nil
	}
	return cmd.Wait()
}

// signal kills the program: there is no gentler way.
func signal(cmd *exec.Cmd, _ bool) { _ = cmd.Process.Kill() }
