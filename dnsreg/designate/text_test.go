package designate

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTextComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 700), func(b []byte) string { return string(b) }),
			rapid.StringOfN(rapid.RuneFrom([]rune(`"\; a1`)), 0, 600, -1)).Draw(t, "value")
		q := quote(v)
		require.Equal(t, v, unquote(q))
		for s := range strings.SplitSeq(q[1:len(q)-1], `" "`) {
			require.LessOrEqual(t, len(s), longest)
			require.NotContains(t, s, `"`)
		}
	})
}

func TestTextThatOthersWroteIsRead(t *testing.T) {
	for in, want := range map[string]string{
		`"a b"`: "a b", `"a" "b"`: "ab", `plain`: "plain", `"say \"hi\""`: `say "hi"`, `"\\"`: `\`, `"\097"`: "a", `""`: "", `"\9"`: "9", `"a\`: `a\`,
		`"\999"`: "999",
	} {
		require.Equal(t, want, unquote(in), in)
	}
}
