package varvel.extra
