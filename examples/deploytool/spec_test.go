package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const head = "name: shop\nroles:\n- name: www\n  image: web-1.0\n  port: 8080\n  min: 1\n  max: 2\n"

// What is wrong with a spec is told with its place, all at once.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"no fault":       {head, nil},
		"empty":          {"# nothing\n", []string{"shop.yaml: there is no spec in it"}},
		"syntax":         {"name: shop\nroles: [a, b\nttl: 2s\n", []string{"shop.yaml:3:1: ',' or ']' must be specified"}},
		"indentation":    {"name: shop\nroles:\n  - name: www\n    image: a\n   min: 1\n", []string{"shop.yaml:5:4: value is not allowed in this context"}},
		"tab":            {"name: shop\n\troles: []\n", []string{"shop.yaml:2:1: found character '\t' that cannot start any token"}},
		"twice":          {head + "name: other\n", []string{`shop.yaml:8:1: mapping key "name" already defined at [1:1]`}},
		"two documents":  {head + "---\nname: other\n", []string{"shop.yaml:8:1: a second document begins, want one"}},
		"no fields":      {"- a\n", []string{"shop.yaml:1:1: a list, want fields: a \"name: value\" in each line, or {name: value}"}},
		"unknown field":  {head + "  imgae: x\nzonne: y\n", []string{"shop.yaml:8:3: roles[0].imgae: there is no such field", "shop.yaml:9:1: zonne: there is no such field"}},
		"unknown deeper": {head + "  health: {path: /, pth: /}\n", []string{"shop.yaml:8:21: roles[0].health.pth: there is no such field"}},
		"a number":       {head + "  version: 1.10\n", []string{"shop.yaml:8:12: roles[0].version: 1.10, want text, in quotes if it would be something else without"}},
		"whole number":   {head + "  replace: 1.5\n  drain: 1s\n", []string{"shop.yaml:8:12: roles[0].replace: 1.5, want a whole number"}},
		"text":           {head + "  replace: two\n", []string{`shop.yaml:8:12: roles[0].replace: "two", want a whole number`}},
		"share":          {head + "  update: {share: half}\n", []string{`shop.yaml:8:19: roles[0].update.share: "half", want a number`}},
		"yes":            {head + "  spot: yes\n", []string{`shop.yaml:8:9: roles[0].spot: "yes", want true or false`}},
		"duration":       {head + "  drain: 5\nttl: soon\n", []string{"shop.yaml:8:10: roles[0].drain: 5, want a duration such as 20s or 5m", `shop.yaml:9:6: ttl: "soon", want a duration such as 20s or 5m`}},
		"time":           {head + "end: {at: tomorrow}\n", []string{`shop.yaml:8:11: end.at: "tomorrow", want a time such as 2026-12-01T08:00:00Z`}},
		"list":           {head + "  after: db\n", []string{`shop.yaml:8:10: roles[0].after: "db", want a list: one item after each "-", or [a, b]`}},
		"empty item":     {head + "  after: [~]\n", []string{"shop.yaml:8:11: roles[0].after[0]: nothing, want text, in quotes if it would be something else without"}},
		"in a list":      {head + "  after:\n  - db\n  - {a: b}\n", []string{"shop.yaml:10:5: roles[0].after[1]: a set of fields, want text, in quotes if it would be something else without"}},
		"left empty":     {head + "  update:\n", []string{"shop.yaml:8:3: roles[0].update: is left empty, want a value ({} if it is fields, none of which is set) or the field left out"}},
		"unknown anchor": {head + "  after: *x\n", []string{"shop.yaml:8:11: roles[0].after: *x is no anchor of what stands before"}},
		"own anchor":     {head + "  scale: {max_of: &x [max_of: *x]}\n", []string{"shop.yaml:8:32: roles[0].scale.max_of[0].max_of: *x is no anchor of what stands before"}},
		"merge":          {head + "  <<: {spot: true}\n", []string{"shop.yaml:8:3: roles[0].<<: there is no such field"}},

		// These are found by the library, and have the place of the field or of what it is missing from.
		"min and max": {strings.Replace(head, "min: 1", "min: 3", 1), []string{"shop.yaml:6:8: spec.roles[0] (www).min: min is 3 and max is 2, want 0 ≤ min ≤ max and max at least 1"}},
		"no image":    {"name: shop\nroles:\n- name: www\n  max: 1\n", []string{"shop.yaml:3:3: spec.roles[0] (www).image: is empty, want the name of an image"}},
		"no roles":    {"name: shop\n", []string{"shop.yaml:1:1: spec.roles: there are none, want at least one"}},
		"several": {head + "  address: true\n  after: [db]\n", []string{
			"shop.yaml:8:12: spec.roles[0] (www).address: the provider of pool \"local\" (*local.Cloud) has no such capability",
			"shop.yaml:8:12: spec.roles[0] (www).address: the provider of pool \"other\" (*local.Cloud) has no such capability",
			`shop.yaml:9:10: spec.roles[0] (www).after: "db" is no role`}},
		"no database": {head + "  serves: database\n", []string{`shop.yaml:3:3: spec.roles[0] (www): it serves a database, but config.Databases["www"] has no replication.Manager`}},
		"of a second": {head + "- {name: www, image: web-1.0, min: 1, max: 1}\n", []string{`shop.yaml:8:10: spec.roles[1] (www).name: "www" is also the name of spec.roles[0], want each once`}},

		// And these by the tool.
		"hours": {head + "hours:\n  open: 0 9 * * mon-fri\n  close: 25 o'clock\n", []string{"shop.yaml:10:10: spec.hours.close: \"25 o'clock\": schedule \"25 o'clock\": 2 fields: want 5 (minute, hour, day of month, month, day of week), or 6 with the second in front"}},
		"image": {strings.Replace(head, "web-1.0", "web-9", 1), []string{`shop.yaml:4:10: spec.roles[0] (www).image: there is no "web-9", want one of ["web-1.0" "web-1.1" "web-broken"]`}},
		"zone":  {head + "zone: shop.example.\n", []string{`shop.yaml:8:7: spec.zone: is "shop.example.", but names need a name server that outlives a command: leave it out`, `config.DNS: is nil, but spec.zone is "shop.example."`}},
		"size":  {head + "  size: huge\n  fallback: [small, tiny]\n", []string{`shop.yaml:8:9: spec.roles[0].size: role www: there is no "huge", want one of ["large" "small"] or none`, `shop.yaml:9:21: spec.roles[0].fallback[1]: role www: there is no "tiny", want one of ["large" "small"] or none`}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseSpec("shop.yaml", []byte(c.text))
			if err == nil {
				var s *site
				if s, err = open(t.TempDir(), d, newProgress(t.Output(), false)); err == nil {
					require.NoError(t, s.close())
				}
			}
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			require.Equal(t, c.want, strings.Split(err.Error(), "\n"))
		})
	}
}

// An anchor says the same thing at several places.
func TestAnchors(t *testing.T) {
	d, err := parseSpec("shop.yaml", []byte("name: shop\nroles:\n- {name: a, image: &i web-1.0, max: 1, health: &h {path: /}}\n- {name: b, image: *i, max: 1, health: *h}\n"))
	require.NoError(t, err)
	require.Equal(t, "web-1.0", d.spec.Roles[1].Image)
	require.Equal(t, "/", d.spec.Roles[1].Health.Path)

	want := d.spec
	want.Roles = append(want.Roles[:0:0], want.Roles...)
	want.Roles[0].Image = "web-1.1"
	_, err = d.edit("roles[0].image", "web-1.1", want)
	require.EqualError(t, err, "shop.yaml:3:23: roles[0].image: cannot be changed alone, want it on one line and without an anchor")
}

// An edit changes one value and no other byte.
func TestEdit(t *testing.T) {
	for _, c := range []struct{ text, value, want string }{
		{"name: shop # ours\nroles: []\n", "twin", "name: twin # ours\nroles: []\n"},
		{"{roles: [], name: 'shop', ttl: 1s}", "twin", "{roles: [], name: twin, ttl: 1s}"},
		{"# ü\nname:   \"shop\"\n", "123", "# ü\nname:   \"123\"\n"},
		{"{\"name\": \"shop\"}", "null", "{\"name\": \"null\"}"},
		{"name: shop", "twin", "name: twin"},
		{"name: shop\r\nttl: 1s\r\n", "twin", "name: twin\r\nttl: 1s\r\n"},
		{"name: |-\n  shop\n", "twin", "shop.yaml:1:7: name: cannot be changed alone, want it on one line and without an anchor"},
		{"ttl: 1s\n", "twin", "shop.yaml: name: is missing, want it written out to change it"},
	} {
		d, err := parseSpec("shop.yaml", []byte(c.text))
		require.NoError(t, err, c.text)
		want := d.spec
		want.Name = c.value
		next, err := d.edit("name", c.value, want)
		if err != nil {
			require.EqualError(t, err, c.want, c.text)
			continue
		}
		require.Equal(t, c.want, string(next.text))
	}
}

// The spec that comes with the tool is right.
func TestShippedSpec(t *testing.T) {
	d, err := readSpec("shop.yaml")
	require.NoError(t, err)
	s, err := open(t.TempDir(), d, newProgress(t.Output(), false))
	require.NoError(t, err)
	require.NoError(t, s.close())
}

// A file that is replaced keeps its mode, and a new one is nobody else's.
func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	for _, mode := range []os.FileMode{0o600, 0o640} {
		require.NoError(t, replace(file, []byte("x")))
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm())
		require.NoError(t, os.Chmod(file, 0o640))
	}
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1)
}
