//go:build unix

package cronlock

import (
	"os/exec"
	"runtime"
	"syscall"
)

// isolate gives the program a process group of its own.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
}

// runHere runs the program from one thread, which lives as long: the kernel's signal for the death of a parent comes when
// the thread dies that started the program.
func runHere(cmd *exec.Cmd, started chan<- error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return nil
	}
	return cmd.Wait()
}

// signal tells the group to end, or kills it.
func signal(cmd *exec.Cmd, kill bool) {
	sig := syscall.SIGTERM
	if kill {
		sig = syscall.SIGKILL
	}
	_ = syscall.Kill(-cmd.Process.Pid, sig) // it is gone already, or not
}
