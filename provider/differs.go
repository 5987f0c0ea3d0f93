package provider

import "reflect"

// Differs names the first field in which two requests of one kind differ, or is "" if they are the same request: what
// a driver says of a token that comes with other parameters. A nil and an empty slice or map are the same.
func Differs[T any](a, b T) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		f, g := x.Field(i), y.Field(i)
		if k := f.Kind(); (k == reflect.Slice || k == reflect.Map) && f.Len() == 0 && g.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(f.Interface(), g.Interface()) {
			return x.Type().Field(i).Name
		}
	}
	return ""
}
