package hostnet

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/varvel/varvel/internal/testutil"
)

// BenchmarkCut is the time from the call until the last receiver has its reset.
func BenchmarkCut(b *testing.B) {
	for _, n := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				cg := testutil.NewCgroup(b)
				l, err := net.Listen("tcp4", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				var accepted, open sync.WaitGroup
				accepted.Add(n)
				open.Go(func() {
					for range n {
						c, err := l.Accept()
						if err != nil {
							b.Error(err)
							return
						}
						accepted.Done()
						open.Go(func() { io.Copy(io.Discard, c); c.Close() })
					}
				})
				h := hold(b, cg, strings.Split(strings.Repeat("tcp "+l.Addr().String()+"\n", n), "\n")[:n]...)
				accepted.Wait()
				b.StartTimer()
				if cut, err := Cut(cg.ID, everything); err != nil || cut != n {
					b.Fatal(cut, err)
				}
				open.Wait()
				b.StopTimer()
				h.close()
				l.Close()
				b.StartTimer()
			}
		})
	}
}
