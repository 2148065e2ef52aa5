package main

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// hoard keeps so many sockets to an address open, each after it has sent something.
func hoard(network, address, count string) string {
	most, err := strconv.Atoi(count)
	if err != nil {
		return err.Error()
	}
	for n := range most {
		c, err := net.DialTimeout(network, address, 2*time.Second)
		if err != nil {
			return fmt.Sprintf("%d ok, then %s", n, word(err))
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			return fmt.Sprintf("%d ok, then %s", n, word(err))
		}
	}
	return fmt.Sprintf("%d ok", most)
}
