package rig

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m) }

func TestConversation(t *testing.T) {
	ordersOut, ordersIn := io.Pipe()
	repliesOut, repliesIn := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- NewConversation[string, int](ordersOut, repliesIn).Serve(func(o string) (int, error) {
			if o == "fail" {
				return 0, errors.New("no such luck")
			}
			return len(o), nil
		})
	}()
	c := NewConversation[string, int](repliesOut, ordersIn)
	if got, err := c.Ask("count"); err != nil || got != 5 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := c.Ask("fail"); err == nil || !strings.Contains(err.Error(), "fail: no such luck") {
		t.Errorf("got %v", err)
	}
	if got, err := c.Ask(""); err != nil || got != 0 {
		t.Errorf("after a failure: got %d, %v", got, err)
	}
	if err := errors.Join(ordersIn.Close(), <-done); err != nil {
		t.Error(err)
	}
}

func TestClosers(t *testing.T) {
	var c Closers
	var order []int
	broken := errors.New("broken")
	c.OnClose(func() error { order = append(order, 1); return nil })
	c.OnClose(func() error { order = append(order, 2); return broken })
	if err := c.Close(); !errors.Is(err, broken) || !slices.Equal(order, []int{2, 1}) {
		t.Errorf("got %v in the order %v", err, order)
	}
	if err := c.Close(); err != nil || len(order) != 2 {
		t.Errorf("again: %v, %v", err, order)
	}
}

func TestServeNames(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	want4, want6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	ServeNames(ctx, conn, func(_ net.Addr, name string) ([]netip.Addr, bool) {
		return []netip.Addr{want4, want6}, name == "known.test"
	})
	ask := func(name string, kind uint16) *dns.Msg {
		t.Helper()
		m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(name, kind), conn.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := ask("KNOWN.test.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want4.String() {
		t.Errorf("got %v", m)
	}
	if m := ask("known.test.", dns.TypeAAAA); len(m.Answer) != 1 || m.Answer[0].(*dns.AAAA).AAAA.String() != want6.String() {
		t.Errorf("got %v", m)
	}
	if m := ask("other.test.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("got %v", m)
	}
}
