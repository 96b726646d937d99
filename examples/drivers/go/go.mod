module example.com/kmsplug-driver-go

go 1.24
