//go:build !linux

package local_test

import (
	"errors"
	"testing"

	"github.com/scalr-go/scalr/provider/local"
)

func TestElsewhereNewSaysWhy(t *testing.T) {
	_, err := local.New(local.Options{Dir: t.TempDir()})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
}
