package hostnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/testutil"
)

// holderEnv makes this program a holder.
const holderEnv = "VARVEL_TEST_HOLDER"

func TestMain(m *testing.M) {
	if list := os.Getenv(holderEnv); list != "" {
		holderMain(strings.Split(list, "\n"))
		return
	}
	testutil.Main(m)
}

func holderCommand(t testing.TB, cg *testutil.Cgroup, addresses []string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	if cg != nil {
		cmd = cg.Command(t, "/proc/self/exe")
	}
	cmd.Env = []string{holderEnv + "=" + strings.Join(addresses, "\n")}
	cmd.Stderr = os.Stderr
	return cmd
}

// holderMain connects to each address, then says how each connection ended. It
// goes when its standard input does.
func holderMain(addresses []string) {
	ended := make(chan string)
	for i, a := range addresses {
		c, err := connect(a)
		if err != nil {
			fmt.Println(a, err)
			return
		}
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- fmt.Sprintf("%d %s", i, name(err))
		}()
	}
	fmt.Println("ready")
	go func() {
		for line := range ended {
			fmt.Println(line)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

func connect(what string) (net.Conn, error) {
	network, address, _ := strings.Cut(what, " ")
	if network == "listen" {
		return accept(address)
	}
	if network != "mappedtcp" {
		return net.Dial(network, address)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), what)
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// accept listens, says where, and returns the first connection, to which it has
// said something.
func accept(what string) (net.Conn, error) {
	network, address, _ := strings.Cut(what, " ")
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	fmt.Println("ready")
	fmt.Println(strings.Replace(l.Addr().String(), "[::]", "127.0.0.1", 1))
	c, err := l.Accept()
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	return c, err
}

func name(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprint(err)
}
