package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is what the daemon uses at a moment, by the names of measures.
type sample struct {
	At     time.Duration      `json:"at_ns"` // since the soak began
	Values map[string]float64 `json:"values"`
}

// measure is one thing that has to stay flat: the median of the last quarter of
// the samples may be above that of the second by a share and by a slack. The
// first quarter is for growing to size.
type measure struct {
	name  string
	unit  string
	share float64
	slack float64
	take  func(*site) (float64, error)
}

// measures are all. Tolerances are for what churns: the number of runs at a
// moment varies, and so does all that belongs to one. Pins and mounts do not.
func measures() []measure {
	return []measure{
		{"memory", "MiB", 0.10, 8, (*site).memory},
		{"descriptors", "", 0.10, 32, func(s *site) (float64, error) { return s.entries(s.daemon.Pid(), "fd") }},
		{"goroutines", "", 0.10, 32, (*site).goroutines},
		{"pins", "", 0, 0, (*site).pins},
		{"cgroups", "", 0.10, 16, (*site).cgroups},
		{"mounts", "", 0, 0, (*site).mounts},
		{"keeper names", "", 0.10, 32, (*site).keeperNames},
	}
}

// flat judges the samples of a measure.
func (m measure) flat(samples []sample) check {
	quarter := len(samples) / 4
	if quarter == 0 {
		return check{m.name, false, fmt.Sprintf("%d samples are too few", len(samples))}
	}
	second, last := m.median(samples[quarter:2*quarter]), m.median(samples[len(samples)-quarter:])
	limit := second*(1+m.share) + m.slack
	return check{m.name, last <= limit, fmt.Sprintf("median of the second quarter %.1f, of the last %.1f %s; limit %.1f (%.0f %% and %.0f)",
		second, last, m.unit, limit, 100*m.share, m.slack)}
}

func (m measure) median(samples []sample) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, s.Values[m.name])
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// sampleUntil takes samples until ctx ends, and prints them as a table.
func (s *site) sampleUntil(ctx context.Context, every time.Duration, out io.Writer) ([]sample, error) {
	var samples []sample
	fmt.Fprintf(out, "%9s", "seconds")
	for _, m := range measures() {
		fmt.Fprintf(out, "  %12s", m.name)
	}
	fmt.Fprintln(out)
	for begin := time.Now(); ; {
		sleep(ctx, every)
		if ctx.Err() != nil {
			return samples, nil
		}
		now, err := s.sample(time.Since(begin))
		if err != nil {
			return samples, err
		}
		samples = append(samples, now)
		fmt.Fprintf(out, "%9.0f", now.At.Seconds())
		for _, m := range measures() {
			fmt.Fprintf(out, "  %12.1f", now.Values[m.name])
		}
		fmt.Fprintln(out)
	}
}

func (s *site) sample(at time.Duration) (sample, error) {
	now := sample{At: at, Values: map[string]float64{}}
	for _, m := range measures() {
		v, err := m.take(s)
		if err != nil {
			return now, fmt.Errorf("measure %s: %w", m.name, err)
		}
		now.Values[m.name] = v
	}
	return now, nil
}

// memory is what the daemon has allocated and is resident (proc(5), RssAnon in
// KiB). Pages of its program are not counted: they are the page cache's, and come
// and go as the kernel likes.
func (s *site) memory() (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("/proc does not say it")
}

// entries counts what is in a folder of a process in /proc.
func (s *site) entries(pid int, folder string) (float64, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, folder))
	return float64(len(entries)), err
}

// goroutines asks the daemon's metrics, again if a busy machine was too slow: a
// soak judges what is used, not how soon it is told.
func (s *site) goroutines() (n float64, err error) {
	for range 3 {
		if n, err = askGoroutines(); err == nil {
			break
		}
	}
	return n, err
}

func askGoroutines() (float64, error) {
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://127.0.0.1:9469/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return 0, fmt.Errorf("%s: %s", resp.Status, why)
	}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, errors.New("the metrics do not have go_goroutines")
}

// pins counts what is in the daemon's bpffs, besides the two files that end with
// .debug and are in every one (kernel/bpf/inode.c).
func (s *site) pins() (float64, error) {
	return count(s.path("bpf"), func(d fs.DirEntry) bool { return !d.IsDir() && !strings.HasSuffix(d.Name(), ".debug") })
}

// cgroups counts the cgroups of runs.
func (s *site) cgroups() (float64, error) {
	return count(filepath.Join(s.cgroup, "varvel/runs"), fs.DirEntry.IsDir)
}

// count counts some of what is below a folder. What vanishes meanwhile does not
// count.
func count(top string, is func(fs.DirEntry) bool) (float64, error) {
	n := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && path != top && is(d) {
			n++
		}
		return err
	})
	return float64(n), err
}

// mounts counts the mounts that the daemon sees.
func (s *site) mounts() (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", s.daemon.Pid()))
	return float64(strings.Count(string(raw), "\n")), err
}

// keeperNames counts the descriptors that the keeper holds, 0 without one.
func (s *site) keeperNames() (float64, error) {
	pid := s.keeper()
	if pid == 0 {
		return 0, nil
	}
	return s.entries(pid, "fd")
}
