package commandio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/internal/commandio"
)

func Example() {
	var kept commandio.Output
	from := &commandio.Reader{R: strings.NewReader("what the caller gives")}
	_, err := io.Copy(&kept, from)
	fmt.Printf("%s; the copy: %v, the caller's stream: %v\n", kept, err, from.Err)
	// Output: what the caller gives; the copy: <nil>, the caller's stream: <nil>
}

func TestWhoseErrorItIs(t *testing.T) {
	broken := errors.New("broken")
	from := &commandio.Reader{R: iotest.ErrReader(broken)}
	_, err := io.Copy(io.Discard, from)
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, from.Err, broken)

	from = &commandio.Reader{R: strings.NewReader("x")}
	r, w := io.Pipe()
	r.CloseWithError(broken)
	_, err = io.Copy(w, from)
	require.ErrorIs(t, err, broken)
	require.NoError(t, from.Err, "the other end failed")

	to := &commandio.Writer{W: w}
	_, err = io.Copy(to, strings.NewReader("x"))
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, to.Err, broken)
}

func TestOutputKeepsTheBeginning(t *testing.T) {
	var o commandio.Output
	for _, n := range []int{1<<20 - 1, 2, 5} {
		taken, err := o.Write(bytes.Repeat([]byte{byte(n)}, n))
		require.NoError(t, err)
		require.Equal(t, n, taken)
	}
	require.Len(t, o, 1<<20)
	require.EqualValues(t, 2, o[1<<20-1])
}
