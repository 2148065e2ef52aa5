package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Save writes results to a file as an indented list, in the order in which the
// figures are known. What the file has of other figures stays. The file is
// replaced as a whole; if anything fails, it is as it was.
func Save(path string, results []Result) error {
	kept, err := load(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("save the figures: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return fmt.Errorf("save the figures: %w", err)
	}
	err = errors.Join(WriteJSON(f, merge(kept, results)), f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save the figures: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// load reads what Save has written; a missing file has no figures.
func load(path string) (results []Result, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &results)
	}
	if err != nil {
		return nil, fmt.Errorf("read the figures measured before, which this measurement would be added to (remove the file to begin anew): %s: %w", path, err)
	}
	return results, nil
}

// merge takes new figures in the place of old ones. Figures that no group makes
// any more are left out.
func merge(old, new []Result) []Result {
	byName := map[string]Result{}
	for _, r := range slices.Concat(old, new) {
		byName[r.Name] = r
	}
	var all []Result
	for _, g := range groups() {
		for _, name := range g.figures {
			if r, ok := byName[name]; ok {
				all = append(all, r)
			}
		}
	}
	return all
}
