package config

import (
	"fmt"
	"strings"
)

// DidYouMean ends a fault with the word that was probably meant, or with
// nothing.
func DidYouMean(got string, words []string) string {
	if word := nearest(got, words); word != "" {
		return fmt.Sprintf(" (did you mean %s?)", word)
	}
	return ""
}

// nearest gives the word that a misspelt one was probably meant to be, or "".
func nearest(got string, words []string) (word string) {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "_")) }
	if len(got) > 64 {
		return ""
	}
	least, got := 3, plain(got)
	for _, w := range words {
		most := min(least-1, len(w)/3)
		if len(w)-len(got) > most || len(got)-len(w) > most {
			continue // there may be ten thousand
		}
		if d := distance(got, plain(w)); d <= most {
			word, least = w, d
		}
	}
	return word
}

// distance counts the bytes to insert, delete, replace or swap with their
// neighbour to turn a into b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
