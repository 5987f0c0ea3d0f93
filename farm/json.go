package farm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// MarshalJSON writes durations as "1m30s".
func (s Spec) MarshalJSON() ([]byte, error) {
	type plain Spec
	data, err := json.Marshal(plain(s))
	if err != nil {
		return nil, err
	}
	return convert(data, reflect.TypeFor[Spec](), func(v any) (any, error) {
		n, err := v.(json.Number).Int64()
		return time.Duration(n).String(), err
	})
}

// UnmarshalJSON reads durations as "1m30s". A field that no spec has is an error that names it.
func (s *Spec) UnmarshalJSON(data []byte) error {
	data, err := convert(data, reflect.TypeFor[Spec](), func(v any) (any, error) {
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("%v is no duration, want text such as \"20s\" or \"5m\"", v)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no duration, want text such as \"20s\" or \"5m\"", text)
		}
		return int64(d), nil
	})
	if err != nil {
		return err
	}
	type plain Spec
	var p plain
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return err
	}
	*s = Spec(p)
	return nil
}

// convert changes every value of data whose place in t is a time.Duration. Other packages' structs that stand in a spec
// (scale.Target) need no methods of their own that way.
func convert(data []byte, t reflect.Type, f func(any) (any, error)) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	v, err := walk(v, t, "", f)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

func walk(v any, t reflect.Type, path string, f func(any) (any, error)) (any, error) {
	if v == nil {
		return nil, nil
	}
	var err error
	switch {
	case t == reflect.TypeFor[time.Duration]():
		if v, err = f(v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	case t.Kind() == reflect.Pointer:
		return walk(v, t.Elem(), path, f)
	case t.Kind() == reflect.Slice:
		list, _ := v.([]any)
		for i := range list {
			if list[i], err = walk(list[i], t.Elem(), fmt.Sprintf("%s[%d]", path, i), f); err != nil {
				return nil, err
			}
		}
	case t.Kind() == reflect.Struct:
		object, _ := v.(map[string]any)
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			member, ok := object[name]
			if !ok {
				continue
			}
			if object[name], err = walk(member, field.Type, strings.TrimPrefix(path+"."+name, "."), f); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
