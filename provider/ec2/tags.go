package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// The tags that everything bears beside the caller's. They are not shown in Tags, and Name is shown as Name.
const (
	TagToken   = "scalr:token"
	TagRequest = "scalr:request"
	tagFront   = "scalr:front" // of a balancer: see front
	tagName    = "Name"
)

// checkTags refuses the keys that are not the caller's.
func checkTags(op, id string, tags map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		switch {
		case k == TagToken, k == TagRequest, k == tagFront, k == tagName, strings.HasPrefix(strings.ToLower(k), "aws:"):
			return invalid(op, id, "Tags has the key %q, which is reserved", k)
		}
	}
	return nil
}

// mark is all tags of a thing, sorted. The spec is the whole request, for its fingerprint.
func mark[T any](token, name string, tags map[string]string, spec T) [][2]string {
	all := maps.Clone(tags)
	if all == nil {
		all = map[string]string{}
	}
	all[TagToken], all[TagRequest] = token, fingerprint(spec)
	if name != "" {
		all[tagName] = name
	}
	var list [][2]string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		list = append(list, [2]string{k, all[k]})
	}
	return list
}

// specification is the tags for the creation of a thing of EC2.
func specification(kind types.ResourceType, list [][2]string) []types.TagSpecification {
	s := types.TagSpecification{ResourceType: kind}
	for _, t := range list {
		s.Tags = append(s.Tags, types.Tag{Key: aws.String(t[0]), Value: aws.String(t[1])})
	}
	return []types.TagSpecification{s}
}

// labels is the tags of a thing as EC2 lists them, taken apart.
type labels struct {
	name, token, request, front string

	tags map[string]string
}

func read(list []types.Tag) labels {
	l := labels{tags: make(map[string]string, len(list))}
	for _, t := range list {
		l.add(aws.ToString(t.Key), aws.ToString(t.Value))
	}
	return l
}

func (l *labels) add(key, value string) {
	switch key {
	case tagName:
		l.name = value
	case TagToken:
		l.token = value
	case TagRequest:
		l.request = value
	case tagFront:
		l.front = value
	default:
		l.tags[key] = value
	}
}

// filters asks for what bears all of the tags. EC2 takes * and ? in values for wildcards.
func filters(tags map[string]string) []types.Filter {
	var list []types.Filter
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, filter("tag:"+k, escape.Replace(tags[k])))
	}
	return list
}

var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`)

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// fingerprint tells requests with one token apart, field by field: "1:Image=Zm9vYg:Name=YmFyYm", the first the version. Fields that are zero are
// left out, so that a field that comes to be later changes nothing. User data, which may be secret, has none. Load balancers take no tags with
// other characters than letters, digits, spaces and +-=._:/@.
func fingerprint[T any](spec T) string {
	parts := []string{"1"}
	v := reflect.ValueOf(spec)
	for i := range v.NumField() {
		f := v.Field(i)
		name := v.Type().Field(i).Name
		if _, secret := f.Interface().(provider.Secret); secret || name == "Token" || f.IsZero() {
			continue
		}
		if k := f.Kind(); (k == reflect.Slice || k == reflect.Map) && f.Len() == 0 {
			continue
		}
		text, err := json.Marshal(f.Interface())
		if err != nil {
			continue // there is no such field
		}
		sum := sha256.Sum256(text)
		parts = append(parts, name+"="+base64.RawURLEncoding.EncodeToString(sum[:])[:6])
	}
	return strings.Join(parts, ":")
}

// check compares the request of a thing that there is with the one that has met it by its token.
func check[T any](op, token string, there labels, spec T) error {
	if there.request == "" {
		return nil
	}
	was, is := map[string]string{}, map[string]string{}
	split := func(into map[string]string, text string) {
		for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ':' || r == ',' }) { // the latter is older
			name, sum, _ := strings.Cut(part, "=")
			into[name] = sum
		}
	}
	split(was, there.request)
	split(is, fingerprint(spec))
	t := reflect.TypeFor[T]()
	for field := range t.Fields() {
		if name := field.Name; was[name] != is[name] {
			return invalid(op, token, "%s differs from what the same Token came with before", name)
		}
	}
	return nil
}

// mismatch is the error where EC2 says that a request differs from an earlier one with its token, and there is what that
// one made.
func mismatch[T any](op, token string, there labels, spec T) error {
	if err := check(op, token, there, spec); err != nil {
		return err
	}
	return invalid(op, token, "UserData, or an option of the provider, differs from what the same Token came with before")
}

// create makes a thing that EC2 would make twice: it looks for it by its token first. Find gives the oldest first.
func create[T any](ctx context.Context, c *Cloud, op, key string, id func(T) string, find func() ([]T, error), make func() (T, error)) (T, error) {
	var none T
	t, release, err := c.memory.hold(ctx, op, key)
	if err != nil {
		return none, &provider.Error{Op: op, ID: key, Err: err}
	}
	defer release()
	for {
		found, err := find()
		if err != nil {
			return none, err
		}
		if len(found) > 0 {
			return found[0], nil
		}
		if thing, ok := t.thing.(T); ok {
			if _, young := c.memory.young(id(thing)); young {
				return thing, nil // the list is late
			}
		}
		left := c.memory.left(t.doubtful)
		if left <= 0 {
			break
		}
		// A call with this token may have made something that no list shows yet.
		if err := pause(ctx, left); err != nil {
			return none, provider.Errorf(op, key, nil, "an earlier call is of unknown outcome: %w", err)
		}
	}
	thing, err := make()
	switch {
	case err == nil:
		t.thing = thing
		c.memory.note(id(thing))
	case errors.Is(err, provider.ErrAmbiguous):
		t.doubtful = time.Now()
	}
	return thing, err
}

// copied is a map of the caller's own.
func copied(m map[string]string) map[string]string { return maps.Clone(m) }
