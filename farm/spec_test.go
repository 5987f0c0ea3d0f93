package farm

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSpecSurvivesJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Make[Spec]().Draw(t, "spec")
		data, err := json.Marshal(want)
		if err != nil {
			t.Skip("a number that JSON does not have")
		}
		var got Spec
		require.NoError(t, json.Unmarshal(data, &got))
		again, err := json.Marshal(got)
		require.NoError(t, err)
		require.Equal(t, string(data), string(again))
	})
}

func TestSpecInJSONIsForPeople(t *testing.T) {
	var s Spec
	require.NoError(t, json.Unmarshal([]byte(`{"name":"shop","ttl":"30s","roles":[{"name":"www","min":1,"max":2,"drain":"1m",
		"scale":{"target":{"metric":"cpu","value":60,"window":"5m"}}}]}`), &s))
	require.Equal(t, 30*time.Second, s.TTL)
	require.Equal(t, time.Minute, s.Roles[0].Drain)
	require.Equal(t, 5*time.Minute, s.Roles[0].Scale.Target.Window)

	require.ErrorContains(t, json.Unmarshal([]byte(`{"roles":[{"drain":"soon"}]}`), &s), `roles[0].drain: "soon" is no duration`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"ttl":20}`), &s), `ttl: 20 is no duration`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"rolls":[]}`), &s), `rolls`)
}
