//! epoll, signalfd, timerfd, eventfd.
