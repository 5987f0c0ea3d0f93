package openstack

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

func TestStringTagsKeepEveryTag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tags := rapid.MapOfN(rapid.StringOfN(rapid.RuneFrom([]rune("abz 09-_:.=,/#%ü")), 1, 40, 128),
			rapid.StringN(0, 255, 255), 0, 40).Draw(t, "tags")
		longest := rapid.SampledFrom([]int{novaTag, otherTag}).Draw(t, "longest")
		all := append(marks(tags, longest), pieces(tags, longest)...)
		for _, s := range all {
			require.LessOrEqual(t, len(s), longest)
			require.Equal(t, -1, strings.IndexAny(s, ",/"), "%q", s)
		}
		all = append([]string{keyToken + "=x", "somebody's"}, rapid.Permutation(all).Draw(t, "order")...)
		got, ours := unmark(all)
		require.Equal(t, tags, got)
		require.Equal(t, map[string]string{keyToken: "x"}, ours)
	})
}

func TestMarksTellTagsApart(t *testing.T) {
	long := strings.Repeat("v", 255)
	seen := map[string]bool{}
	for _, kv := range [][2]string{{"a", "b"}, {"a", "b="}, {"a=", "b"}, {"ab", ""}, {"a", long}, {"a", long[1:]}, {"a" + long[:1], long[1:]}} {
		m := mark(kv[0], kv[1], novaTag)
		require.False(t, seen[m], m)
		seen[m] = true
		require.LessOrEqual(t, len(m), novaTag)
	}
}

func TestASignatureNamesTheFieldThatDiffers(t *testing.T) {
	l := provider.Launch{Token: "t", Name: "www-1", Image: "debian", UserData: provider.Secret("a"), Volumes: []string{}, Tags: map[string]string{"k": "v"}}
	same := l
	same.Volumes = nil
	require.NoError(t, sameSpec("Launch", "i", same, signature(l)))
	for field, change := range map[string]func(*provider.Launch){
		"Name":           func(l *provider.Launch) { l.Name = "www-2" },
		"Image":          func(l *provider.Launch) { l.Image = "" },
		"Size":           func(l *provider.Launch) { l.Size = "large" },
		"Placement":      func(l *provider.Launch) { l.Placement = "b" },
		"Network":        func(l *provider.Launch) { l.Network = "n" },
		"SecurityGroups": func(l *provider.Launch) { l.SecurityGroups = []string{"web"} },
		"KeyPair":        func(l *provider.Launch) { l.KeyPair = "k" },
		"UserData":       func(l *provider.Launch) { l.UserData = provider.Secret("b") },
		"Volumes":        func(l *provider.Launch) { l.Volumes = []string{"v"} },
		"Tags":           func(l *provider.Launch) { l.Tags = map[string]string{"k": "w"} },
	} {
		other := l
		change(&other)
		err := sameSpec("Launch", "i", other, signature(l))
		require.ErrorIs(t, err, provider.ErrInvalid)
		require.EqualError(t, err, "Launch t: invalid: Token was used for i with another "+field)
	}
	require.ErrorIs(t, sameSpec("Launch", "i", l, "of another release"), provider.ErrInvalid)
	require.LessOrEqual(t, len(signature(l)), 255)
}

func TestTagsThatNovaTakes(t *testing.T) {
	require.NoError(t, checkTags("Launch", "t", map[string]string{"scalr-farm": "shop", "a:b.c_d e": "anything: ü/"}))
	require.EqualError(t, checkTags("Launch", "t", map[string]string{"scalr:token": "x"}),
		`Launch t: invalid: Tags has the key "scalr:token", want one that does not begin with "scalr:"`)
	require.EqualError(t, checkTags("Launch", "t", map[string]string{"a/b": "x"}),
		`Launch t: invalid: Tags has the key "a/b", want letters, digits and "-_:. ", which Nova takes`)
}

func TestADescriptionHasTheTagsThatFit(t *testing.T) {
	s := provider.AddressSpec{Token: strings.Repeat("t", 64), Tags: map[string]string{"scalr-farm": "shop", "k": "a b,ü"}}
	f := floating{Description: describe(s)}
	f.read()
	require.True(t, f.half)
	require.Equal(t, s.Tags, f.tags)
	require.Equal(t, s.Token, f.token)
	require.Equal(t, signature(s), f.spec)
	s.Tags["long"] = strings.Repeat("v", 255)
	f = floating{Description: describe(s)}
	f.read()
	require.LessOrEqual(t, len(f.Description), mostText)
	require.True(t, f.half)
	require.Empty(t, f.tags)
	f.Strings = append(append([]string{complete}, marks(s.Tags, otherTag)...), pieces(s.Tags, otherTag)...)
	f.read()
	require.False(t, f.half)
	require.Equal(t, s.Tags, f.tags)
	f = floating{Description: "somebody's own words"}
	f.read()
	require.False(t, f.half)
	require.Empty(t, f.tags)
}
