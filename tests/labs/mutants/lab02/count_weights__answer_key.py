# mutant: infero.roofline.count_weights
# diagnosis: answer-key
# story: called the finished function
#| exercise: infero.roofline.count_weights
def count_weights(config):
    from infero import roofline
    return roofline.count_weights(config)
