package config

import (
	"fmt"
	"slices"
	"strings"
)

// didYouMean returns a hint that names the candidate nearest to word, or, if
// none is near, all of them.
func didYouMean(word string, candidates []string) string {
	if best, ok := nearest(word, candidates); ok {
		return fmt.Sprintf("did you mean `%s`?", best)
	}
	if len(candidates) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(candidates))
	if len(sorted) > 12 {
		sorted = append(sorted[:12], "…")
	}
	return "known here: " + strings.Join(sorted, ", ")
}

// nearest returns the candidate with the least edit distance to word, if that
// is at most a third of the word's length (and one for the shortest words).
func nearest(word string, candidates []string) (string, bool) {
	best, limit := "", max(1, len(word)/3)
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best, best != ""
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	previous, current := []int(nil), make([]int, len(b)+1)
	for j := range current {
		current[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			next[j+1] = min(next[j]+1, current[j+1]+1, current[j]+differ(a[i], b[j]))
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], previous[j-1]+1)
			}
		}
		previous, current = current, next
	}
	return current[len(b)]
}

func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}
