//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
)

func apart() bool { return false }

func enterNetwork() int {
	fmt.Fprintln(os.Stderr, "cutting connections needs a network namespace, which only Linux has")
	return 1
}

func setUp() error { return errors.ErrUnsupported }

func cut(string, string) error { return errors.ErrUnsupported }

func heal(string, string) error { return errors.ErrUnsupported }
