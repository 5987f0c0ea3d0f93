package cache

import (
	"fmt"
	"io"
	"reflect"
)

// writeShape writes what a type looks like to an encoder: kinds, and the names and tags of exported fields. Types that look the same
// have the same, wherever they are declared and whatever they are called.
func writeShape(w io.Writer, t reflect.Type, within []reflect.Type) {
	for i, outer := range within {
		if outer == t {
			fmt.Fprintf(w, "^%d", i)
			return
		}
	}
	within = append(within, t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		fmt.Fprint(w, t.Kind(), " ")
		writeShape(w, t.Elem(), within)
	case reflect.Array:
		fmt.Fprintf(w, "[%d]", t.Len())
		writeShape(w, t.Elem(), within)
	case reflect.Map:
		fmt.Fprint(w, "map ")
		writeShape(w, t.Key(), within)
		fmt.Fprint(w, " to ")
		writeShape(w, t.Elem(), within)
	case reflect.Struct:
		exported := 0
		fmt.Fprint(w, "{")
		for f := range t.Fields() {
			if f.IsExported() {
				exported++
				fmt.Fprintf(w, "%s %q ", f.Name, f.Tag)
				writeShape(w, f.Type, within)
				fmt.Fprint(w, ";")
			}
		}
		if exported == 0 { // it encodes itself, as time.Time does
			fmt.Fprint(w, t)
		}
		fmt.Fprint(w, "}")
	default:
		fmt.Fprint(w, t.Kind())
	}
}
