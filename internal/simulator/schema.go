package simulator

import (
	"reflect"
	"strings"
	"sync"
	"time"
)

// kind is the type of a property as filters see it.
type kind uint8

const (
	kindOther kind = iota // not comparable: objects and collections of them
	kindText
	kindNumber
	kindBool
	kindTime
	kindTexts // a collection of strings
)

// edm is the kind's name in error messages.
func (k kind) edm() string {
	switch k {
	case kindText:
		return "Edm.String"
	case kindNumber:
		return "Edm.Double"
	case kindBool:
		return "Edm.Boolean"
	case kindTime:
		return "Edm.DateTimeOffset"
	case kindTexts:
		return "Collection(Edm.String)"
	}
	return "Edm.Untyped"
}

// property is a field of a resource type. The struct tag odata says more:
// filter (the pages list it for $filter), expand (empty unless $expand names it).
type property struct {
	name   string
	index  int
	kind   kind
	filter bool
	expand bool
}

// schema is a resource type: its properties in the order of the documentation.
type schema struct {
	name       string
	properties []property
	byName     map[string]int // by name in lower case
}

func (s *schema) find(name string) (property, bool) {
	i, ok := s.byName[strings.ToLower(name)]
	if !ok {
		return property{}, false
	}
	return s.properties[i], true
}

var schemas sync.Map // reflect.Type → *schema; bounded by the program's types

// schemaOf reads the struct tags of T.
func schemaOf[T any]() *schema {
	t := reflect.TypeFor[T]()
	if s, ok := schemas.Load(t); ok {
		return s.(*schema)
	}
	s := &schema{name: t.Name(), byName: map[string]int{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || name == "" {
			continue
		}
		tag := f.Tag.Get("odata")
		s.byName[strings.ToLower(name)] = len(s.properties)
		s.properties = append(s.properties, property{
			name: name, index: i, kind: kindOf(f.Type),
			filter: strings.Contains(tag, "filter"), expand: strings.Contains(tag, "expand"),
		})
	}
	schemas.Store(t, s)
	return s
}

func kindOf(t reflect.Type) kind {
	switch t {
	case reflect.TypeFor[instant]():
		return kindTime
	case reflect.TypeFor[[]string]():
		return kindTexts
	}
	switch t.Kind() {
	case reflect.String:
		return kindText
	case reflect.Int, reflect.Int64, reflect.Float64:
		return kindNumber
	case reflect.Bool:
		return kindBool
	}
	return kindOther
}

// valueOf gives a property for comparison: string, float64, bool, time.Time,
// []string, or nil for null.
func valueOf(row reflect.Value, p property) any {
	v := row.Field(p.index)
	switch x := v.Interface().(type) {
	case instant:
		if x.IsZero() {
			return nil
		}
		return x.Time
	case optional:
		if x == "" {
			return nil
		}
		return string(x)
	case optionalInt:
		if x == 0 {
			return nil
		}
		return float64(x)
	case []string:
		return x
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Int, reflect.Int64:
		return float64(v.Int())
	case reflect.Float64:
		return v.Float()
	case reflect.Bool:
		return v.Bool()
	}
	return nil
}

// instant is a time as Microsoft's services print it: UTC, up to seven digits
// of a second. The zero value is null.
type instant struct{ time.Time }

// at makes an instant.
func at(t time.Time) instant { return instant{t.UTC()} }

// MarshalJSON implements json.Marshaler.
func (t instant) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(t.Format(`"2006-01-02T15:04:05.9999999Z"`)), nil
}

// optional is a string that is null when empty.
type optional string

// MarshalJSON implements json.Marshaler.
func (o optional) MarshalJSON() ([]byte, error) {
	if o == "" {
		return []byte("null"), nil
	}
	return marshalPlain(string(o))
}

// optionalInt is a number that is null when 0.
type optionalInt int64

// MarshalJSON implements json.Marshaler.
func (o optionalInt) MarshalJSON() ([]byte, error) {
	if o == 0 {
		return []byte("null"), nil
	}
	return marshalPlain(int64(o))
}
