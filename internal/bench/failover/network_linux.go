package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// mark is in the environment of the process that is in a network of its own.
const mark = "SCALR_BENCH_APART"

func apart() bool { return os.Getenv(mark) != "" }

// enterNetwork runs this program again in a network namespace of its own, so that cutting connections there touches nobody
// else. It needs root.
func enterNetwork() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	separate(cmd)
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "a network namespace, which needs root: %v\n", err)
		return 1
	}
	return 0
}

// separate gives a command a network and mounts of its own.
func separate(cmd *exec.Cmd) bool {
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	return true
}

// setUp makes the namespace's loopback work, and rules come before its local addresses.
func setUp() error {
	return errors.Join(ownMounts(), ip("link", "set", "lo", "up"), ip("rule", "add", "pref", "100", "lookup", "local"), ip("rule", "del", "pref", "0"))
}

// cut breaks the network from one source to one destination without a word; heal mends it.
func cut(from, to string) error {
	return ip("rule", "add", "pref", "10", "from", from, "to", to, "blackhole")
}
func heal(from, to string) error {
	return ip("rule", "del", "pref", "10", "from", from, "to", to, "blackhole")
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}
