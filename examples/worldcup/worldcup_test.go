package worldcup_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/examples/worldcup"
)

func TestDay(t *testing.T) {
	day := worldcup.Day()
	require.Len(t, day, 720)
	require.Equal(t, day[0], day.At(-time.Second, time.Hour))
	require.Equal(t, day[719], day.At(2*time.Hour, time.Hour))
}

func ExampleLoad_Peak() {
	fmt.Printf("%.0f requests a minute\n", worldcup.Day().Peak())
	// Output: 183971 requests a minute
}
