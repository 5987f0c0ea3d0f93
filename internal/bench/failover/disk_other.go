//go:build !linux

package main

import "errors"

func ownMounts() error { return errors.ErrUnsupported }

func mountDisk(string) error { return errors.ErrUnsupported }

func unmountDisk(string) error { return errors.ErrUnsupported }

func fillDisk(string) error { return errors.ErrUnsupported }

func freeDisk(string) error { return errors.ErrUnsupported }
