//go:build unix && !linux

package cronlock

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}
