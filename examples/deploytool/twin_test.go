package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
)

func TestTwinFlags(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) // a Saturday
	for text, want := range map[string]string{
		"2026-12-01T08:00:00Z":      "2026-12-01T08:00:00Z",
		"2026-12-01T08:00:00+01:00": "2026-12-01T07:00:00Z",
		"tue 08:00":                 "2026-12-01T08:00:00Z",
		"tue 8":                     "2026-12-01T08:00:00Z",
		"Sat 12:00":                 "2026-12-05T12:00:00Z",
		"tue 08:00 Europe/Paris":    "2026-12-01T07:00:00Z",
		"2026-11-28T12:00:00Z":      `"2026-11-28T12:00:00Z" is over, want a time to come`,
		"tomorrow":                  `"tomorrow", want a time such as 2026-12-01T08:00:00Z, "tue 08:00" or "tue 08:00 Europe/Paris"`,
		"tue 24:00":                 `"tue 24:00", want a time such as`,
		"tue 8:00 at home":          `"tue 8:00 at home", want a time such as`,
		"someday 08:00":             `"someday 08:00": `,
		"tue 08:00 Mars/Olympus":    `"tue 08:00 Mars/Olympus": `,
	} {
		at, err := untilOf(text, now)
		if err != nil {
			require.ErrorContains(t, err, want, text)
			continue
		}
		require.Equal(t, want, at.Format(time.RFC3339), text)
	}
	for text, want := range map[string]string{
		"9-17":              "TZ=UTC 0 9 * * mon-fri, TZ=UTC 0 17 * * mon-fri",
		"8:30-18":           "TZ=UTC 30 8 * * mon-fri, TZ=UTC 0 18 * * mon-fri",
		"9-17 Europe/Paris": "TZ=Europe/Paris 0 9 * * mon-fri, TZ=Europe/Paris 0 17 * * mon-fri",
		"17-9":              `"17-9", want hours of a day such as 9-17, 8:30-18 or "9-17 Europe/Paris"`,
		"9-9":               `"9-9", want hours`,
		"9":                 `"9", want hours`,
		"9-24":              `"9-24", want hours`,
		"9-17:60":           `"9-17:60", want hours`,
		"":                  `"", want hours`,
		"9 - 17":            `"9 - 17", want hours`,
		"9-17 Mars/Olympus": `"9-17 Mars/Olympus": `,
	} {
		h, err := weekdaysOf(text)
		if err != nil {
			require.ErrorContains(t, err, want, text)
			continue
		}
		require.Equal(t, want, h.Open+", "+h.Close, text)
	}
	// Every fault at once.
	o := twinFlags{until: "never", weekdays: "always", sizes: map[string]string{"a": "b"}}
	_, err := o.options(farm.Spec{Name: "shop"}, now)
	require.Len(t, strings.Split(err.Error(), "\n"), 4)
}

// What is different stands in the twin's file, and everything else is as in the parent's.
func TestTwinText(t *testing.T) {
	end := &farm.End{At: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), TerminateOptions: farm.TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
	o := farm.CloneOptions{Scale: 0.5, End: end, Hours: &farm.Hours{Open: "0 9 * * mon-fri", Close: "0 17 * * mon-fri"}}
	const tail = "end: {at: 2026-12-01T08:00:00Z, delete_volumes: true, final_snapshot: true}\nhours: {open: \"0 9 * * mon-fri\", close: \"0 17 * * mon-fri\"}\n"
	for name, c := range map[string]struct {
		text, want string
	}{
		"plain": {"# ours\nname: shop # the name\nroles:\n- name: www\n  image: a # of May\n  min: 3 # three\n  max: 6\n- image: b\n  name: db\n  size: small\n  fallback: [small]\n  max: 1",
			"# ours\nname: twin # the name\nroles:\n- name: www\n  image: a # of May\n  size: small\n  min: 2 # three\n  max: 3\n- image: b\n  name: db\n  size: large\n  fallback: [small]\n  max: 1\n" + tail},
		"the parent's end": {"name: shop\nend:\n  at: 2026-11-01T08:00:00Z\n\n  # it is short\n  keep_names: true\nhours: {open: '* * * * *', close: '0 0 * * *'}\n# the roles\nroles:\n- {name: x, image: a, max: 1}\n",
			"name: twin\n# the roles\nroles:\n- {name: x, image: a, max: 1}\n" + tail},
		"warm": {"name: shop\nroles:\n- {name: x, image: a, max: 1, warm: {count: 4}}\n", "name: twin\nroles:\n- {name: x, image: a, max: 1, warm: {count: 2}}\n" + tail},
		"a database": {"name: shop\nparent: old\nroles:\n- {name: x, serves: database, image: a, min: 1, max: 1}\n",
			"name: twin\nroles:\n- {name: x, serves: database, image: a, min: 1, max: 1}\nparent: shop\n" + tail},
		"no line": {"name: shop\nroles:\n- {name: www, image: a, max: 1}\n", "shop.yaml:3:22: roles[0].image: has no line of its own, want one to add size below it"},
		"flow":    {"{name: shop, roles: [{name: x, image: a, max: 1}]}\n", "shop.yaml: cannot be changed in its text, want each field of the farm on a line of its own"},
		"anchor":  {"name: shop\nroles:\n- {name: x, image: a, port: &p 4, max: *p}\n", "shop.yaml: cannot be changed in its text"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseSpec("shop.yaml", []byte(c.text))
			require.NoError(t, err)
			o := o
			o.Roles = map[string]farm.CloneRole{}
			for _, r := range d.spec.Roles {
				if r.Name == "www" || r.Name == "db" {
					o.Roles[r.Name] = farm.CloneRole{Size: map[string]string{"www": "small", "db": "large"}[r.Name], Fallback: r.Fallback}
				}
			}
			want, _, err := d.spec.Clone("twin", o)
			require.NoError(t, err)
			twin, err := d.twin("twin.yaml", want)
			if err != nil {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.Equal(t, c.want, string(twin.text))
			require.Equal(t, want, twin.spec)
			require.Equal(t, "twin.yaml", twin.file)
		})
	}
}
