package testenv

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a test would fail of is a program's error, and the clean-ups run all the same, the last one first.
func TestProgram(t *testing.T) {
	var order []int
	given := errors.New("given")
	for want, f := range map[string]func(t testing.TB) error{
		"":                  func(t testing.TB) error { return nil },
		"given":             func(t testing.TB) error { return given },
		"a 1":               func(t testing.TB) error { t.Fatalf("a %d", 1); return nil },
		"no server":         func(t testing.TB) error { t.Skip("no server"); return nil },
		"left over\nbroken": func(t testing.TB) error { t.Errorf("left over"); t.Fatal("broken"); return nil },
	} {
		order = nil
		err := Program(t.Context(), func(t testing.TB) error {
			t.Cleanup(func() { order = append(order, 1) })
			t.Cleanup(func() { order = append(order, 2) })
			return f(t)
		})
		require.Equal(t, []int{2, 1}, order)
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, want)
	}
	require.PanicsWithValue(t, "bug", func() {
		_ = Program(t.Context(), func(testing.TB) error { panic("bug") })
	})
}
