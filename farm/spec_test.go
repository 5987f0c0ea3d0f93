package farm

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/farm/scale"
)

func TestSpecSurvivesJSON(t *testing.T) {
	within := func(parts *rapid.Generator[any]) rapid.MakeConfig { // what a MaxOf holds
		return rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
			reflect.TypeFor[time.Time](): rapid.Map(rapid.Int64Range(0, 1<<33), func(n int64) time.Time { return time.Unix(n, 0).UTC() }).AsAny(),
		}, Fields: map[reflect.Type]map[string]*rapid.Generator[any]{reflect.TypeFor[Scale](): {"MaxOf": parts}}}
	}
	plain := rapid.MakeCustom[Scale](within(rapid.Just([]Scale(nil)).AsAny()))
	specs := rapid.MakeCustom[Spec](within(rapid.SliceOfN(plain, 0, 3).AsAny()))
	rapid.Check(t, func(t *rapid.T) {
		want := specs.Draw(t, "spec")
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

	require.NoError(t, json.Unmarshal([]byte(`{"roles":[{"name":"www","scale":{"max_of":[{"target":{"metric":"cpu","value":60}},
		{"schedule":{"windows":[{"days":["mon-fri"],"from":"08:00","to":"18:00","least":6}],"ahead":"5m"}}],
		"limit":{"up":{"by":4,"per":"1m"},"down_for":"10m"}}}]}`), &s))
	require.Equal(t, 5*time.Minute, s.Roles[0].Scale.MaxOf[1].Schedule.Ahead)
	require.Equal(t, scale.Limit{Up: scale.Rate{By: 4, Per: time.Minute}, DownFor: 10 * time.Minute}, *s.Roles[0].Scale.Limit)

	require.NoError(t, json.Unmarshal([]byte(`{"end":{"at":"2026-12-01T08:00:00+01:00","delete_volumes":true}}`), &s))
	require.True(t, s.End.DeleteVolumes)
	require.Equal(t, time.Date(2026, 12, 1, 7, 0, 0, 0, time.UTC), s.End.At.UTC())

	require.ErrorContains(t, json.Unmarshal([]byte(`{"roles":[{"drain":"soon"}]}`), &s), `roles[0].drain: "soon" is no duration`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"ttl":20}`), &s), `ttl: 20 is no duration`)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"rolls":[]}`), &s), `rolls`)
}
