package chaos

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSelectKinds(t *testing.T) {
	got, err := selectKinds("stop,kill")
	if err != nil || len(got) != 2 || got[0].name != "kill" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := selectKinds("kill,nothing"); err == nil {
		t.Error("an unknown kind is accepted")
	}
}

// TestSchedule: the same seed gives the same turns, and each kind has one in
// every round.
func TestSchedule(t *testing.T) {
	turns := func(seed uint64) (names []string) {
		s, random := schedule{kinds: kinds()}, rand.New(rand.NewPCG(seed, 0))
		for range 3 * len(kinds()) {
			names = append(names, s.next(random).name)
		}
		return names
	}
	a, b := turns(1), turns(1)
	times := map[string]int{}
	for i := range a {
		times[a[i]]++
		if a[i] != b[i] {
			t.Fatalf("turn %d is %s and %s", i, a[i], b[i])
		}
	}
	for _, k := range kinds() {
		if times[k.name] != 3 {
			t.Errorf("%s had %d turns of 3", k.name, times[k.name])
		}
	}
}

func TestMemoryMount(t *testing.T) {
	const info = `35 28 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
36 28 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
37 28 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,memory_recursiveprot
`
	if got := findMemoryMount(info); got != "/sys/fs/cgroup/memory" {
		t.Errorf("got %q", got)
	}
	if got := findMemoryMount("37 28 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,memory_recursiveprot\n"); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestProgress(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := readProgress(f); err != nil || got != (progress{}) {
		t.Errorf("before the first attempt: %v, %v", got, err)
	}
	p := &pace{client: &client{}}
	for _, made := range []uint64{1, 1 << 50} {
		p.made.Store(made)
		p.client.broken.Store(3)
		if err := p.write(f); err != nil {
			t.Fatal(err)
		}
		if got, err := readProgress(f); err != nil || got != (progress{made, 3}) {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestJob(t *testing.T) {
	want := job{"r1", beta, time.Second, time.Minute, 1 << 63}
	if got, err := readJob(want.args()[1:]); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := readJob([]string{"r1", beta, "x", "1s", "1"}); err == nil {
		t.Error("a bad job is accepted")
	}
}

func TestFlat(t *testing.T) {
	series := func(values ...float64) (all []sample) {
		for _, v := range values {
			all = append(all, sample{Values: map[string]float64{"x": v}})
		}
		return all
	}
	m := measure{name: "x", share: 0.1, slack: 1}
	tests := []struct {
		name   string
		values []float64
		want   bool
	}{
		{"flat", []float64{1, 5, 10, 10, 10, 10, 10, 10}, true},
		{"it grew in the first quarter", []float64{0, 9, 10, 10, 10, 10, 10, 10}, true},
		{"within the tolerance", []float64{10, 10, 10, 10, 11, 11, 12, 12}, true},
		{"it grows", []float64{10, 10, 10, 10, 11, 12, 13, 14}, false},
		{"it falls", []float64{10, 10, 10, 10, 5, 5, 2, 2}, true},
		{"too few", []float64{1, 2, 3}, false},
	}
	for _, test := range tests {
		if got := m.flat(series(test.values...)); got.Passed != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}
