package config

import (
	"errors"
	"strings"
)

// expand puts environment variables in the place of ${NAME}. A $ without a
// brace stays as it is. The values are not searched again. used reports whether
// the text asks for a variable; the error names variables, never a value.
func expand(s string, env func(string) (string, bool)) (expanded string, used bool, err error) {
	var b strings.Builder
	var unset []string
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || !variableName(name) {
			return "", true, errors.New("${ begins an environment variable and needs its name and a }, such as ${NAME}")
		}
		value, set := env(name)
		if !set {
			unset = append(unset, name)
		}
		b.WriteString(value)
		s, used = after, true
	}
	switch len(unset) {
	case 0:
		return b.String(), used, nil
	case 1:
		return "", true, errors.New("the environment variable " + unset[0] + " is not set")
	}
	return "", true, errors.New("the environment variables " + strings.Join(unset, ", ") + " are not set")
}

// variableName reports whether s is a name that a shell could set.
func variableName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxShown
}
