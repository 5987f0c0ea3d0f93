package farm

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"weak"
)

// claims are the managers and followers of this program's farms, and the name of the farm that each serves: what one farm tells them,
// another must not. A second Farm of the same name is the same farm.
var claims struct {
	sync.Mutex
	farm map[weak.Pointer[byte]]string
}

// claim takes the config's managers and followers for the farm of that name, or, if one serves another, none of them.
func claim(farm string, c *Config) error {
	var f faults
	claims.Lock()
	defer claims.Unlock()
	for key := range claims.farm {
		if key.Value() == nil {
			delete(claims.farm, key)
		}
	}
	var mine []weak.Pointer[byte]
	take := func(field string, v any) {
		p := reflect.ValueOf(v)
		if p.Kind() != reflect.Pointer || p.IsNil() || p.Type().Elem().Size() == 0 {
			return // nothing that could be told from others
		}
		key := weak.Make((*byte)(p.UnsafePointer()))
		if other, taken := claims.farm[key]; taken && other != farm {
			f.add(field, "serves farm %q, want one for each farm", other)
		}
		mine = append(mine, key)
	}
	for _, role := range sortedKeys(c.Databases) {
		take(fmt.Sprintf("config.Databases[%q]", role), c.Databases[role])
	}
	for _, role := range sortedKeys(c.Caches) {
		take(fmt.Sprintf("config.Caches[%q]", role), c.Caches[role])
	}
	if len(f) > 0 {
		return errors.Join(f...)
	}
	if claims.farm == nil {
		claims.farm = map[weak.Pointer[byte]]string{}
	}
	for _, key := range mine {
		claims.farm[key] = farm
	}
	return nil
}

// release gives back what a farm that has ended has taken.
func release(farm string) {
	claims.Lock()
	defer claims.Unlock()
	for key, name := range claims.farm {
		if name == farm {
			delete(claims.farm, key)
		}
	}
}
