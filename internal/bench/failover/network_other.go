//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func apart() bool { return false }

func enterNetwork() int {
	fmt.Fprintln(os.Stderr, "cutting connections needs a network namespace, which only Linux has")
	return 1
}

func separate(*exec.Cmd) bool { return false }

func setUp() error { return errors.ErrUnsupported }

func cut(string, string) error { return errors.ErrUnsupported }

func heal(string, string) error { return errors.ErrUnsupported }
