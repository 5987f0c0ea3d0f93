package route53

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Any text comes back out of the quotes, and what Route 53 writes is read.
func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "text"))
		back, err := unquote(quote(text))
		require.NoError(t, err)
		require.Equal(t, text, back)
	})
	for in, want := range map[string]string{`"a" "b"`: "ab", `"a""b"`: "ab", `"\"\\"`: `"\`, `"\344\052"`: "\xe4*", `""`: ""} {
		got, err := unquote(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, in := range []string{`a`, `"a`, `"a\"`, `"a" b`} {
		_, err := unquote(in)
		require.Error(t, err, in)
	}
	require.Equal(t, "*.example.com.", unescape(`\052.example.com.`))
}
