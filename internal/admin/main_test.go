package admin_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/testutil"
)

// helperVariable makes the test binary a client of its own: "socket|calls".
const helperVariable = "VARVEL_TEST_ADMIN_HELPER"

func TestMain(m *testing.M) {
	if s := os.Getenv(helperVariable); s != "" {
		os.Exit(help(s))
	}
	testutil.Main(m)
}

// help makes the calls one after the other and prints "call: status" for each;
// 200 is a success, 0 no answer at all.
func help(s string) int {
	socket, calls, _ := strings.Cut(s, "|")
	c := api.NewClient(socket)
	defer c.Close()
	for _, call := range strings.Split(calls, ",") {
		err := ask(c, call)
		code := 200
		if err != nil {
			code = status(err)
		}
		fmt.Printf("%s: %d\n", call, code)
	}
	return 0
}
