package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/scalr-go/scalr/farm"
)

// document is a spec file: what it says, and where it says it.
type document struct {
	file    string
	text    []byte
	spec    farm.Spec
	at      map[string]*token.Token // of each value, by its path: "roles[0].min"
	anchors map[string]ast.Node
	faults  []error
}

func readSpec(file string) (*document, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseSpec(file, text)
}

// parseSpec reads a spec and is stricter than YAML is: a version 1.10 that YAML takes for the number 1.1, a field that is left
// empty and a misspelt one are errors. All of them are listed.
func parseSpec(file string, text []byte) (*document, error) {
	d := &document{file: file, text: text, at: map[string]*token.Token{}, anchors: map[string]ast.Node{}}
	tree, err := parser.ParseBytes(text, 0)
	if e, ok := errors.AsType[yaml.Error](err); ok {
		return nil, d.fault(e.GetToken(), "%s", e.GetMessage())
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil, fmt.Errorf("%s: there is no spec in it", file)
	}
	if len(tree.Docs) > 1 {
		return nil, d.fault(tree.Docs[1].Start, "a second document begins, want one")
	}
	value := d.value(tree.Docs[0].Body, reflect.TypeFor[farm.Spec](), "")
	if len(d.faults) > 0 {
		return nil, errors.Join(d.faults...)
	}
	data, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(data, &d.spec)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, nil
}

// fault is an error at a place of the file.
func (d *document) fault(t *token.Token, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: "+format, append([]any{d.file, t.Position.Line, t.Position.Column}, args...)...)
}

// value gives what a node says as JSON has it, if it says what the type can hold.
func (d *document) value(n ast.Node, t reflect.Type, path string) any {
	for {
		switch is := n.(type) {
		case *ast.AnchorNode:
			n = is.Value
			defer func() { d.anchors[is.Name.GetToken().Value] = is.Value }() // it cannot contain itself
			continue
		case *ast.AliasNode:
			name := is.Value.GetToken()
			if n = d.anchors[name.Value]; n == nil {
				return d.wrong(name, path, "*%s is no anchor of what stands before", name.Value)
			}
			continue
		}
		break
	}
	if d.at[path] == nil {
		d.at[path] = begins(n)
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time](): // a struct, but not in JSON
	case t.Kind() == reflect.Struct:
		return d.object(n, t, path)
	case t.Kind() == reflect.Slice:
		list, ok := n.(*ast.SequenceNode)
		if !ok {
			return d.wrong(begins(n), path, "%s, want a list: one item after each \"-\", or [a, b]", told(n))
		}
		values := []any{}
		for i, item := range list.Values {
			values = append(values, d.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i)))
		}
		return values
	}
	var v any
	if s, ok := n.(ast.ScalarNode); ok {
		v = s.GetValue()
	}
	var err error
	if text, _ := v.(string); t == reflect.TypeFor[time.Duration]() {
		_, err = time.ParseDuration(text)
	} else if data, failed := json.Marshal(v); failed == nil {
		err = json.Unmarshal(data, reflect.New(t).Interface())
	}
	if err != nil || v == nil {
		return d.wrong(begins(n), path, "%s, want %s", told(n), wanted(t))
	}
	return v
}

// wanted says what a type can hold.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 20s or 5m"
	case t == reflect.TypeFor[time.Time]():
		return "a time such as 2026-12-01T08:00:00Z"
	case t.Kind() == reflect.String:
		return "text, in quotes if it would be something else without"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// object reads the fields of a struct by the names that they have in JSON.
func (d *document) object(n ast.Node, t reflect.Type, path string) any {
	fields, ok := n.(ast.MapNode)
	if !ok {
		return d.wrong(begins(n), path, "%s, want fields: a \"name: value\" in each line, or {name: value}", told(n))
	}
	object := map[string]any{}
	for i := fields.MapRange(); i.Next(); {
		key := i.Key().GetToken()
		field, ok := fieldOf(t, key.Value)
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if !ok {
			d.wrong(key, at, "there is no such field")
		} else if i.Value().Type() == ast.NullType {
			d.wrong(key, at, "is left empty, want a value ({} if it is fields, none of which is set) or the field left out")
		} else {
			object[key.Value] = d.value(i.Value(), field.Type, at)
		}
	}
	return object
}

func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	fields := reflect.VisibleFields(t)
	i := slices.IndexFunc(fields, func(f reflect.StructField) bool {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return tag == name && tag != ""
	})
	if i < 0 {
		return reflect.StructField{}, false
	}
	return fields[i], true
}

func (d *document) wrong(t *token.Token, path, format string, args ...any) any {
	if path != "" {
		format = path + ": " + format
	}
	d.faults = append(d.faults, d.fault(t, format, args...))
	return nil
}

// begins gives the first token of a value: of a block of fields the parser gives the first colon.
func begins(n ast.Node) *token.Token {
	if fields, ok := n.(ast.MapNode); ok && n.GetToken().Value != "{" {
		if i := fields.MapRange(); i.Next() {
			return i.Key().GetToken()
		}
	}
	return n.GetToken()
}

// told is a value in the words of an error.
func told(n ast.Node) string {
	switch n.(type) {
	case ast.MapNode:
		return "a set of fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode, *ast.LiteralNode:
		return strconv.Quote(n.GetToken().Value)
	}
	return n.GetToken().Value
}

var roleName = regexp.MustCompile(` \([a-z0-9-]*\)`)

// locate puts the place in the file before each fault that the library has found in a field: of the field, or of the nearest
// thing around it if the field is not there.
func (d *document) locate(err error) error {
	all, ok := errors.Unwrap(err).(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	faults := all.Unwrap()
	for i, fault := range faults {
		field, _, _ := strings.Cut(roleName.ReplaceAllString(fault.Error(), ""), ": ")
		path, ok := strings.CutPrefix(field, "spec.")
		if !ok {
			continue
		}
		for path != "" && d.at[path] == nil {
			path = path[:max(strings.LastIndexAny(path, ".["), 0)]
		}
		faults[i] = d.fault(d.at[path], "%w", fault)
	}
	return errors.Join(faults...)
}
