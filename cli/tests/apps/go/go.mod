module example.com/acme/ferry/v2

go 1.19
