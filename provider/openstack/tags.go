package openstack

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/scalr-go/scalr/provider"
)

// The driver's own entries beside the tags.
const (
	own      = "scalr:"
	keyToken = own + "token"
	keySpec  = own + "spec" // see signature
	keyImage = own + "image"
	keySize  = own + "size"
	keyKeys  = own + "keys" // the keys of an image's tags: it inherits properties of the image below
	keyEnded = own + "ended"
)

// checkTags reports the first tag that Nova and Cinder would not take.
func checkTags(op, id string, tags map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if strings.HasPrefix(k, own) {
			return provider.Errorf(op, id, provider.ErrInvalid, "Tags has the key %q, want one that does not begin with %q", k, own)
		}
		if strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:. ") != "" {
			return provider.Errorf(op, id, provider.ErrInvalid, "Tags has the key %q, want letters, digits and \"-_:. \", which Nova takes", k)
		}
	}
	return nil
}

// metadata is the tags and the driver's own entries.
func metadata(tags map[string]string, more ...string) map[string]string {
	m := maps.Clone(tags)
	if m == nil {
		m = map[string]string{}
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// tagsIn gives the tags in metadata.
func tagsIn(metadata map[string]string) map[string]string {
	tags := make(map[string]string, len(metadata))
	for k, v := range metadata {
		if !strings.HasPrefix(k, own) {
			tags[k] = v
		}
	}
	return tags
}

// hash is a short name for parts.
func hash(length int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))[:length]
}

// String tags hold a tag each as "key=value", escaped. One that is longer than a service takes is told by its hash, and has
// its text in pieces beside it: "#hash", "#hash.0.text", "#hash.1.text"….
const (
	novaTag  = 60  // characters that a tag of a server may have
	otherTag = 255 // of a load balancer or a floating IP

)

// mark is the string tag that tells that something bears the tag k=v.
func mark(k, v string, longest int) string {
	text := url.QueryEscape(k) + "=" + url.QueryEscape(v)
	if len(text) > longest {
		return "#" + hash(22, k, v)
	}
	return text
}

// marks are the string tags of tags, without the pieces.
func marks(tags map[string]string, longest int) []string {
	all := make([]string, 0, len(tags))
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, mark(k, tags[k], longest))
	}
	return all
}

// pieces are the texts of the tags whose mark does not tell them.
func pieces(tags map[string]string, longest int) (all []string) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		m := mark(k, tags[k], longest)
		if m[0] != '#' {
			continue
		}
		text := url.QueryEscape(k) + "=" + url.QueryEscape(tags[k])
		for i := 0; text != ""; i++ {
			p := m + "." + strconv.Itoa(i) + "."
			n := min(longest-len(p), len(text))
			all = append(all, p+text[:n])
			text = text[n:]
		}
	}
	return all
}

// unmark reads tags back from string tags. What begins with own is the driver's: it comes apart.
func unmark(all []string) (tags, ours map[string]string) {
	tags, ours = map[string]string{}, map[string]string{}
	type piece struct {
		n    int
		text string
	}
	long := map[string][]piece{}
	for _, t := range all {
		if rest, ok := strings.CutPrefix(t, "#"); ok {
			parts := strings.SplitN(rest, ".", 3)
			if n, err := strconv.Atoi(at(parts, 1)); err == nil && len(parts) == 3 {
				long[parts[0]] = append(long[parts[0]], piece{n, parts[2]})
			}
			continue
		}
		k, v, ok := strings.Cut(t, "=")
		if ok && strings.HasPrefix(k, own) {
			ours[k] = v
		} else if ok {
			put(tags, t)
		}
	}
	for _, ps := range long {
		slices.SortFunc(ps, func(a, b piece) int { return cmp.Compare(a.n, b.n) })
		var text strings.Builder
		for _, p := range ps {
			text.WriteString(p.text)
		}
		put(tags, text.String())
	}
	return tags, ours
}

func put(tags map[string]string, text string) {
	k, v, _ := strings.Cut(text, "=")
	key, err := url.QueryUnescape(k)
	value, err2 := url.QueryUnescape(v)
	if err == nil && err2 == nil {
		tags[key] = value
	}
}

func at(parts []string, i int) string {
	if i < len(parts) {
		return parts[i]
	}
	return ""
}

// signature is a short hash of each field of a request but the token, in their order: enough to tell which one another
// request with the same token has otherwise, for any process that reads it at the cloud. It does not tell user data, which
// the token salts.
func signature[T any](spec T) string {
	v := reflect.ValueOf(spec)
	token := v.FieldByName("Token").String()
	var parts []string
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if name == "Token" {
			continue
		}
		var text []byte
		if k := f.Kind(); !((k == reflect.Slice || k == reflect.Map) && f.Len() == 0) {
			text, _ = json.Marshal(f.Interface())
		}
		if s, ok := f.Interface().(provider.Secret); ok {
			text = s
		}
		parts = append(parts, hash(4, token, name, string(text)))
	}
	return strings.Join(parts, "")
}

// sameSpec fails if what was made with the token was asked for otherwise.
func sameSpec[T any](op, id string, spec T, stored string) error {
	want := signature(spec)
	if stored == want {
		return nil
	}
	v := reflect.ValueOf(spec)
	token, field, n := v.FieldByName("Token").String(), "specification", 0
	for i := range v.NumField() {
		if v.Type().Field(i).Name == "Token" {
			continue
		}
		if len(stored) == len(want) && stored[n:n+4] != want[n:n+4] {
			field = v.Type().Field(i).Name
			break
		}
		n += 4
	}
	return provider.Errorf(op, token, provider.ErrInvalid, "Token was used for %s with another %s", id, field)
}
