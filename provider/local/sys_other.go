//go:build !linux

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"syscall"
)

// What Linux has and this system does not. New fails, so that none of the rest is ever called.

func supported() error {
	return fmt.Errorf("instances are processes, for which it needs Linux; this is %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func identify(int) (procID, error)                         { return procID{}, errors.ErrUnsupported }
func (procID) alive() bool                                 { return false }
func supervises(int) bool                                  { return false }
func waits(int) bool                                       { return false }
func goesOn(int) bool                                      { return false }
func isProgram(int) bool                                   { return false }
func (procID) thisBoot() bool                              { return false }
func members(mark) ([]int, error)                          { return nil, errors.ErrUnsupported }
func (mark) on(int) bool                                   { return false }
func (mark) put(int)                                       {}
func listening() map[netip.Addr]bool                       { return nil }
func groupLeader() *syscall.SysProcAttr                    { return nil }
func userOf(mark, string) (string, error)                  { return "", errors.ErrUnsupported }
func freeze(context.Context, mark) (func(), error)         { return nil, errors.ErrUnsupported }
func awaitStop(context.Context, []int, os.Signal) error    { return nil }
func cloneFile(_, _ *os.File) error                        { return errors.ErrUnsupported }
func nextData(*os.File, int64) (data, hole int64, _ error) { return 0, 0, errors.ErrUnsupported }
func maxFiles() int                                        { return 0 }
func openNoFollow(string) (*os.File, error)                { return nil, errors.ErrUnsupported }
func own(string, fs.FileInfo) error                        { return errors.ErrUnsupported }
func tryLockFile(string) (func(), error)                   { return nil, errors.ErrUnsupported }

func readNow(uintptr, []byte) int { return 0 }
