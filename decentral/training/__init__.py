"""What is learned: data and its partition, models, minibatches, and the loop around them."""
